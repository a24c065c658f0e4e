//! Which rule a call falls under: a workflow's rules, then, where they have somebody asked, what was decided before.
//!
//! A call can have several parts: a command line its simple commands, a patch its files. Each part is judged by the first
//! rule that is on it. One part that is denied denies the call; else one that is asked about has somebody asked; it is
//! allowed only if each part is.

use crate::glob::{text_fits, text_tokens};
use crate::path_pattern::{PathPattern, normal};
use crate::permission_policy::{OnTimeout, PermissionPolicy, PermissionRule, RuleAction, SubagentCondition};
use crate::relay_event::{AppliedRule, RuleOrigin};
use crate::tool_call::{CallParts, Input, Part, ToolCall};
use crate::tool_pattern::{PatternError, Side, ToolPattern};
use crate::workflow_event::Grant;

/// What the rules say of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// Whether it may be made, or somebody is asked.
    pub action: RuleAction,
    /// The rule, or the earlier decision, that says so.
    pub rule: AppliedRule,
    /// How long a question waits, in milliseconds; none for as long as it takes.
    pub ask_timeout_ms: Option<u64>,
    /// What an unanswered question comes to.
    pub on_timeout: OnTimeout,
}

impl ToolPattern {
    /// Whether a rule with this pattern is on a call: to allow it, it has to be on every part of it, to deny it or to
    /// have somebody asked, on any.
    pub fn fits(&self, call: &ToolCall, action: RuleAction) -> bool {
        let input = call.input();
        let parts = call.parts(&input);
        let fits = |part: &Part| self.fits_part(&parts, part, side(action));
        match action {
            RuleAction::Allow => parts.parts.iter().all(fits),
            RuleAction::Deny | RuleAction::Ask => parts.parts.iter().any(fits),
        }
    }

    /// Whether a decision with this pattern is on any part of a call, as far as it can be: what it allows it has to be on in the
    /// strict sense. Of files whose folder is not known (an empty `cwd`) the tool alone is looked at.
    pub fn is_on_part_of(&self, call: &ToolCall, action: RuleAction) -> bool {
        let input = call.input();
        if matches!(input, Input::Files { .. }) && call.cwd.is_empty() {
            return self.fits_tool(&call.tool_name);
        }
        let parts = call.parts(&input);
        self.fits_tool(&call.tool_name) && parts.parts.iter().any(|part| self.fits_part(&parts, part, side(action)))
    }

    /// Whether it may stand for this call.
    pub(crate) fn fits_exactly(&self, call: &ToolCall) -> bool {
        self.fits(call, RuleAction::Allow)
    }
}

fn side(action: RuleAction) -> Side {
    match action {
        RuleAction::Allow => Side::Strict,
        RuleAction::Deny | RuleAction::Ask => Side::Wide,
    }
}

impl PermissionRule {
    /// Whether pattern and conditions can be read.
    ///
    /// # Errors
    /// [`PatternError`] of the first that cannot.
    pub fn check(&self) -> Result<(), PatternError> {
        ToolPattern::parse(&self.tool)?;
        match &self.when.cwd {
            Some(cwd) => PathPattern::of_folder(cwd).map(drop).map_err(|(at, problem)| PatternError {
                pattern: cwd.clone(),
                place: at + 1,
                problem: problem.to_owned(),
                accepted: "accepted is a folder, or a glob of folders: `src`, `src/**`, `~/work/**`, `/srv/*`",
            }),
            None => Ok(()),
        }
    }

    /// Whether its conditions hold; what cannot be read holds for what denies or asks, and for nothing that allows.
    fn applies(&self, call: &ToolCall) -> bool {
        let when = &self.when;
        let side = side(self.action);
        let is_state = when.state.is_empty() || when.state.contains(&call.state);
        let is_iteration = when.iteration_from.is_none_or(|from| call.iteration >= from)
            && when.iteration_to.is_none_or(|to| call.iteration <= to);
        let is_agent = match &when.subagent {
            None => true,
            Some(SubagentCondition::Any(is_subagent)) => call.agent_id.is_some() == *is_subagent,
            Some(SubagentCondition::Type(name)) => {
                let is_type = |agent_type: &str| text_fits(&text_tokens(name), agent_type);
                // Of a type that is not told it may be.
                call.agent_id.is_some() && call.agent_type.as_deref().map_or(side == Side::Wide, is_type)
            }
        };
        let is_folder = when.cwd.as_deref().is_none_or(|cwd| match PathPattern::of_folder(cwd) {
            Ok(pattern) => pattern.fits(&normal(&call.cwd, call.places()), call.places(), side),
            Err(_) => side == Side::Wide,
        });
        is_state && is_iteration && is_agent && is_folder
    }
}

impl PermissionPolicy {
    /// Whether all rules can be read.
    ///
    /// # Errors
    /// [`PatternError`] of the first that cannot.
    pub fn check(&self) -> Result<(), PatternError> {
        self.rules.iter().try_for_each(PermissionRule::check)
    }

    /// What the rules say of a call; `None` where they have no opinion.
    ///
    /// The first rule that is on it counts. Only where that says `ask`, the latest matching grant of the run decides, else
    /// the latest matching one of `standing`, those that hold for every run of the workflow. Both are in the order of the
    /// log. A rule whose pattern cannot be read is passed over: see [`PermissionPolicy::check`].
    pub fn ruling(&self, call: &ToolCall, grants_of_run: &[Grant], standing: &[Grant]) -> Option<Ruling> {
        let input = call.input();
        let parts = call.parts(&input);
        let rules: Vec<Rule<'_>> = numbered(&self.rules)
            .filter(|(_, rule)| rule.applies(call))
            .filter_map(|(number, rule)| Some(Rule { number, rule, pattern: ToolPattern::parse(&rule.tool).ok()? }))
            .filter(|rule| rule.pattern.fits_tool(&call.tool_name))
            .collect();
        let first_on = |part: &Part| {
            let mut rules = rules.iter();
            rules.find(|rule| rule.pattern.fits_part(&parts, part, side(rule.rule.action)))
        };
        let on_parts: Vec<(&Part, Option<&Rule<'_>>)> = parts.parts.iter().map(|part| (part, first_on(part))).collect();
        let asking = on_parts.iter().filter_map(|(_, rule)| *rule).find(|rule| rule.rule.action == RuleAction::Ask);
        let earlier = |part: &Part| {
            latest(grants_of_run, RuleOrigin::Run, &parts, part)
                .or_else(|| latest(standing, RuleOrigin::Always, &parts, part))
        };
        let ruling = |rule: &Rule<'_>, (action, applied): (RuleAction, AppliedRule)| Ruling {
            action,
            rule: applied,
            ask_timeout_ms: self.ask_timeout_ms(Some(rule.rule)),
            on_timeout: self.on_timeout(Some(rule.rule)),
        };
        let on_part = |(part, rule): &(&Part, Option<&Rule<'_>>)| match (rule, asking) {
            (Some(rule), _) if rule.rule.action != RuleAction::Ask => {
                Some(ruling(rule, (rule.rule.action, rule.applied())))
            }
            (Some(rule), _) => Some(ruling(rule, earlier(part).unwrap_or_else(|| (RuleAction::Ask, rule.applied())))),
            // Who was asked about another part decided on the whole call, this part too.
            (None, Some(asking)) => earlier(part).map(|earlier| ruling(asking, earlier)),
            (None, None) => None,
        };
        let rulings: Vec<Option<Ruling>> = on_parts.iter().map(on_part).collect();
        let first = |action| rulings.iter().flatten().find(|ruling| ruling.action == action);
        if let Some(ruling) = first(RuleAction::Deny).or_else(|| first(RuleAction::Ask)) {
            return Some(ruling.clone());
        }
        // A part that nothing is said of leaves the whole to the harness.
        rulings.into_iter().collect::<Option<Vec<_>>>()?.pop()
    }
}

struct Rule<'a> {
    number: u32,
    rule: &'a PermissionRule,
    pattern: ToolPattern,
}

impl Rule<'_> {
    fn applied(&self) -> AppliedRule {
        AppliedRule {
            origin: RuleOrigin::Workflow,
            number: self.number,
            tool: self.rule.tool.clone(),
            reason: self.rule.reason.clone(),
        }
    }
}

fn numbered<T>(items: &[T]) -> impl DoubleEndedIterator<Item = (u32, &T)> {
    items.iter().enumerate().map(|(at, item)| (u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1), item))
}

/// The latest decision of before that is on this part.
fn latest(
    grants: &[Grant],
    origin: RuleOrigin,
    call: &CallParts<'_>,
    part: &Part,
) -> Option<(RuleAction, AppliedRule)> {
    numbered(grants).rev().find_map(|(number, grant)| {
        let action = if grant.is_allowed { RuleAction::Allow } else { RuleAction::Deny };
        let pattern = ToolPattern::parse(&grant.pattern).ok()?;
        let rule = AppliedRule { origin, number, tool: grant.pattern.clone(), reason: None };
        pattern.fits_part(call, part, side(action)).then_some((action, rule))
    })
}
