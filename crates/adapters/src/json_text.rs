//! The JSON reading and writing of `runledger_events`, under the name that the adapters have for it.

pub(crate) use runledger_events::{Fields, ObjectText, as_text, quoted};
