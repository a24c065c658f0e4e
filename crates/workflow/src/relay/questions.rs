//! What an agent asks its user, and which answer is to which question.

use std::collections::BTreeMap;

use runledger_events::Fields;

use super::error::UnfitVerdict;

/// One question of an agent to its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserQuestion {
    /// The question.
    pub question: String,
    /// A word for it.
    pub header: Option<String>,
    /// What can be chosen.
    pub options: Vec<Choice>,
    /// Whether several may be.
    pub is_multiple: bool,
}

/// What can be chosen as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The answer.
    pub label: String,
    /// What it means.
    pub description: Option<String>,
}

impl UserQuestion {
    /// The questions in the input of the tool that asks them; none where it is of another shape.
    pub fn of_input(tool_input_json: &str) -> Vec<Self> {
        let fields = Fields::parse(tool_input_json).ok();
        let questions = fields.as_ref().and_then(|fields| fields.list("questions")).unwrap_or_default();
        questions.into_iter().filter_map(Self::read).collect()
    }

    fn read(json: &str) -> Option<Self> {
        let fields = Fields::parse(json).ok()?;
        let options = fields.list("options").unwrap_or_default();
        let choices = options.into_iter().filter_map(|json| {
            let fields = Fields::parse(json).ok()?;
            Some(Choice { label: fields.text("label")?, description: fields.text("description") })
        });
        Some(Self {
            question: fields.text("question")?,
            header: fields.text("header"),
            options: choices.collect(),
            is_multiple: fields.bool("multiSelect").unwrap_or(false),
        })
    }

    /// The answer that several choices come to, or choices and words of one's own.
    pub fn joined<'a>(choices: impl IntoIterator<Item = &'a str>) -> String {
        choices.into_iter().collect::<Vec<_>>().join(", ")
    }

    fn is_called(&self, name: &str, number: usize) -> bool {
        self.question == name || self.header.as_deref() == Some(name) || name.parse() == Ok(number)
    }
}

/// The answers under the questions' own text, in their order. Of a tool whose input is of another shape, as they are.
pub(crate) fn answers_in_order(
    questions: &[UserQuestion],
    answers: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, UnfitVerdict> {
    let asked = || questions.iter().map(|asked| asked.question.as_str()).collect::<Vec<_>>().join(" / ");
    if questions.is_empty() && answers.is_empty() {
        return Err(UnfitVerdict::NotAnswered("the user something".to_owned()));
    }
    if questions.is_empty() {
        return Ok(answers.iter().map(|(name, answer)| (name.clone(), answer.clone())).collect());
    }
    let number_of = |name: &str| {
        let exact = questions.iter().position(|asked| asked.question == name);
        exact.or_else(|| questions.iter().enumerate().position(|(index, asked)| asked.is_called(name, index + 1)))
    };
    let mut in_order = BTreeMap::new();
    for (name, answer) in answers {
        let index = number_of(name).ok_or_else(|| UnfitVerdict::NotAsked { name: name.clone(), asked: asked() })?;
        in_order.insert(index, answer.clone());
        // The agent cannot tell questions of the same text apart either.
        for (other, _) in questions.iter().enumerate().filter(|(_, asked)| asked.question == *name) {
            in_order.entry(other).or_insert_with(|| answer.clone());
        }
    }
    let found =
        questions.iter().enumerate().map(|(index, asked)| Some((asked.question.clone(), in_order.remove(&index)?)));
    found.collect::<Option<Vec<_>>>().ok_or_else(|| UnfitVerdict::NotAnswered(asked()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const INPUT: &str = r#"{"questions":[
        {"question":"Which colour?","header":"Colour","options":[{"label":"Red","description":"r"},{"label":"Blue"}]},
        {"question":"Which sizes?","header":"Size","options":[{"label":"S"},{"label":"L"}],"multiSelect":true}]}"#;

    fn answers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, answer)| (name.to_string(), answer.to_string())).collect()
    }

    #[test]
    fn answers_go_by_text_header_or_number_and_come_under_the_text_in_order() {
        let questions = UserQuestion::of_input(INPUT);
        assert_eq!(questions[1].options.iter().map(|option| option.label.as_str()).collect::<Vec<_>>(), ["S", "L"]);
        assert_eq!(questions[0].options[0].description.as_deref(), Some("r"));
        assert!(questions[1].is_multiple && !questions[0].is_multiple);
        for pairs in [[("Which sizes?", "S, L"), ("Colour", "Red")], [("2", "S, L"), ("1", "Red")]] {
            let found = answers_in_order(&questions, &answers(&pairs)).unwrap();
            let expected = [("Which colour?", "Red"), ("Which sizes?", "S, L")];
            assert_eq!(found, expected.map(|(name, answer)| (name.to_owned(), answer.to_owned())));
        }
    }

    #[test]
    fn an_answer_by_text_is_to_each_question_of_that_text() {
        let same = UserQuestion::of_input(r#"{"questions":[{"question":"Same?"},{"question":"Same?"}]}"#);
        let both = answers_in_order(&same, &answers(&[("Same?", "yes")])).unwrap();
        assert_eq!(both, [("Same?".to_owned(), "yes".to_owned()), ("Same?".to_owned(), "yes".to_owned())]);
        let each = answers_in_order(&same, &answers(&[("1", "yes"), ("2", "no")])).unwrap();
        assert_eq!(each.iter().map(|(_, answer)| answer.as_str()).collect::<Vec<_>>(), ["yes", "no"]);
    }

    #[test]
    fn an_answer_to_what_was_not_asked_and_a_question_left_open_are_refused() {
        let questions = UserQuestion::of_input(INPUT);
        let stray = answers_in_order(&questions, &answers(&[("Shape", "round")])).unwrap_err();
        assert!(matches!(stray, UnfitVerdict::NotAsked { name, .. } if name == "Shape"));
        assert!(answers_in_order(&[], &answers(&[])).is_err(), "no answer at all is none to whatever was asked");
        let open = answers_in_order(&questions, &answers(&[("Colour", "Red")])).unwrap_err();
        assert_eq!(open, UnfitVerdict::NotAnswered("Which colour? / Which sizes?".to_owned()));
    }
}
