//! The figures: their names, units, references and floors.

/// What a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Floor {
    /// It is shown, and nothing is asked of it.
    None,
    /// Its ratio to the reference, at least.
    Ratio(f64),
    /// Its ratio to the reference, at most.
    RatioAtMost(f64),
    /// Its value, at most.
    Value(f64),
}

impl Floor {
    /// Whether the medians reach it.
    pub(crate) fn is_reached(self, median: f64, ratio: Option<f64>) -> bool {
        match self {
            Self::None => true,
            Self::Ratio(floor) => ratio.is_some_and(|ratio| ratio >= floor),
            Self::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
            Self::Value(most) => median <= most,
        }
    }

    pub(crate) fn value(self) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Ratio(floor) | Self::RatioAtMost(floor) | Self::Value(floor) => Some(floor),
        }
    }

    /// What the value is the floor of.
    pub(crate) fn meaning(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Ratio(_) => Some("ratio at least"),
            Self::RatioAtMost(_) => Some("ratio at most"),
            Self::Value(_) => Some("median at most"),
        }
    }

    pub(crate) fn words(self) -> String {
        match self {
            Self::None => "–".to_owned(),
            Self::Ratio(floor) => format!("≥ {floor} ×"),
            Self::RatioAtMost(most) => format!("≤ {most} ×"),
            Self::Value(most) => format!("≤ {most}"),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// What the ratio is to.
    pub(crate) reference: Option<&'static str>,
    pub(crate) floor: Floor,
    /// Sync mode, sizes.
    pub(crate) settings: String,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, settings: impl Into<String>) -> Self {
        Self { name: name.into(), unit, reference: None, floor: Floor::None, settings: settings.into() }
    }

    pub(crate) fn against(self, reference: &'static str, floor: Floor) -> Self {
        Self { reference: Some(reference), floor, ..self }
    }

    pub(crate) fn at_most(self, value: f64) -> Self {
        Self { floor: Floor::Value(value), ..self }
    }
}
