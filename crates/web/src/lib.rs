//! The ledger in a browser: a server for one ledger, on this machine alone unless told otherwise.
//!
//! Pages are rendered here and work without script; `assets/app.js` makes them live. Reads go to
//! [`Queries`](runledger_projections::Queries), acts to [`Commands`](runledger_workflow::Commands), and nothing else sees both.
//!
//! ```no_run
//! use runledger_web::{Options, Server};
//!
//! let server = Server::bind(Options::new("ledger.db"))?;
//! println!("open {}", server.url());
//! server.serve_until(std::thread::park)?;
//! # Ok::<(), runledger_web::ServeError>(())
//! ```

mod actions;
mod api;
mod assets;
mod cancelling;
pub mod checks;
mod failure;
mod guard;
mod jobs;
mod keeper;
mod ledger;
mod listener;
mod metrics;
pub mod objects;
mod pages;
mod pasts;
mod server;
mod show;
mod stream;

pub use cancelling::{CancelError, cancel_all, cancel_below};
pub use guard::{Token, TokenError};
pub use server::{Options, ServeError, Server};
