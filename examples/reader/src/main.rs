//! A reader that links `runledger-projections` alone: brings the read models up to date and tells what they say.
//!
//! `cargo run -p runledger-example-reader -- LEDGER`

use runledger_projections::{Projections, Queries, RunFilter};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ledger = std::env::args().nth(1).ok_or("usage: reader LEDGER")?;
    let head = Projections::open(&ledger)?.catch_up()?;

    let queries = Queries::open(&ledger)?;
    println!("the log ends at position {head}");
    for run in queries.runs(&RunFilter::default())? {
        println!("run {} is {} after {} of {} iterations", run.id, run.status, run.iteration, run.max_iterations);
    }
    for session in queries.sessions()? {
        println!("session {} has {} events and {} runs", session.id, session.events, session.runs);
    }
    Ok(())
}
