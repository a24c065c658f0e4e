//! The table: what was measured, gathered over the repetitions and printed as text or as JSON Lines.

use comfy_table::{CellAlignment, presets};
use serde_json::json;

use crate::figure::Figure;

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    /// What was not measured, and why.
    left_out: Vec<(String, String)>,
}

#[derive(Debug)]
struct Row {
    figure: Figure,
    values: Vec<f64>,
    /// Of each repetition to the reference in the same one.
    ratios: Vec<f64>,
}

impl Table {
    /// Adds one repetition of a figure, with its reference's value in the same repetition.
    pub(crate) fn add(&mut self, figure: Figure, value: f64, reference: Option<f64>) {
        let index = match self.rows.iter().position(|row| row.figure.name == figure.name) {
            Some(index) => index,
            None => {
                self.rows.push(Row { figure, values: Vec::new(), ratios: Vec::new() });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[index];
        row.values.push(value);
        row.ratios.extend(reference.map(|reference| value / reference));
    }

    /// Notes that rows are missing.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>, reason: impl Into<String>) {
        self.left_out.push((what.into(), reason.into()));
    }

    /// Whether something was measured, no row is below its floor, and none that has one was left out.
    pub(crate) fn is_all_well(&self) -> bool {
        !self.rows.is_empty() && self.left_out.is_empty() && self.rows.iter().all(Row::is_well)
    }

    pub(crate) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            for row in &self.rows {
                println!("{}", row.json());
            }
            for (what, reason) in &self.left_out {
                println!("{}", json!({ "left_out": what, "reason": reason }));
            }
            return Ok(());
        }
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["FIGURE", "MEDIAN", "MIN", "MAX", "UNIT", "RATIO", "TO", "FLOOR", "", "SETTINGS"]);
        for row in &self.rows {
            let (min, max) = (row.values.iter().copied().fold(f64::MAX, f64::min), row.max());
            table.add_row([
                row.figure.name.clone(),
                number(median(&row.values)),
                number(min),
                number(max),
                row.figure.unit.to_owned(),
                row.ratio()
                    .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.*}", if ratio < 1.0 { 3 } else { 2 })),
                row.figure.reference.unwrap_or("–").to_owned(),
                row.figure.floor.words(),
                if row.is_well() { String::new() } else { "BELOW".to_owned() },
                row.figure.settings.clone(),
            ]);
        }
        for column in [1, 2, 3, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        for (what, reason) in &self.left_out {
            println!(" left out: {what}: {reason}");
        }
        Ok(())
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        (!self.ratios.is_empty()).then(|| median(&self.ratios))
    }

    fn max(&self) -> f64 {
        self.values.iter().copied().fold(f64::MIN, f64::max)
    }

    fn is_well(&self) -> bool {
        self.figure.floor.is_reached(median(&self.values), self.ratio())
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "figure": self.figure.name,
            "median": median(&self.values),
            "min": self.values.iter().copied().fold(f64::MAX, f64::min),
            "max": self.max(),
            "unit": self.figure.unit,
            "reference": self.figure.reference,
            "ratio": self.ratio(),
            "floor": self.figure.floor.value(),
            "floor_is": self.figure.floor.meaning(),
            "is_below": !self.is_well(),
            "settings": self.figure.settings,
        })
    }
}

/// The value in the middle, or the mean of the two that are.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len().is_multiple_of(2) { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) } else { at(middle) }
}

/// The value that this part of them does not exceed.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
