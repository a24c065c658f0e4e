//! Acknowledgements, and the faults of a log that they show. No I/O: a faulty log can be made up.

use std::collections::{HashMap, HashSet};

use runledger_events::{EventId, Position, RecordedEvent, StreamName, StreamVersion};
use runledger_store::Receipt;

/// An event, by what names it: an id is unique in its stream alone.
pub(crate) type Key = (StreamName, EventId);

/// Where an event stands.
pub(crate) type Place = (Position, StreamVersion);

/// The line by which a worker tells of a receipt.
pub(crate) fn line(stream: &StreamName, receipt: &Receipt) -> String {
    format!("ack {} {} {stream} {}\n", receipt.position, receipt.stream_version, receipt.event_id)
}

/// The acknowledgement in a line, where it is one.
pub(crate) fn parse(line: &str) -> Option<(Key, Place)> {
    // The test program's own words may stand before the first one on its line.
    let (_, words) = line.rsplit_once("ack ")?;
    let words: Vec<&str> = words.split_whitespace().collect();
    let [position, version, stream, id] = words[..] else {
        return None;
    };
    let key = (StreamName::new(stream).ok()?, EventId::new(id).ok()?);
    Some((key, (Position(position.parse().ok()?), StreamVersion(version.parse().ok()?))))
}

/// What is wrong with a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was acknowledged, and is not there.
    Lost { event: Key, acknowledged: Place },
    /// It does not stand where it was said to.
    Moved { event: Key, acknowledged: Place, stands: Place },
    /// It was acknowledged at one place, and at another one later.
    SaidTwice { event: Key, first: Place, again: Place },
    /// It is there more than once.
    Doubled { event: Key },
    /// Positions do not count up by one here.
    PositionGap { position: Position, expected: Position },
    /// The versions of its stream do not count up by one here.
    VersionGap { event: Key, version: StreamVersion, expected: StreamVersion },
    /// A part of a request is there, and another part is not.
    Torn { present: Key, missing: Key },
    /// Nobody has asked for it.
    Unasked { event: Key },
}

/// Everything that was acknowledged on one ledger.
#[derive(Default)]
pub(crate) struct Acknowledged {
    places: HashMap<Key, Place>,
    said_twice: Vec<Fault>,
}

impl Acknowledged {
    /// Takes an acknowledgement. The same one may come again: clients repeat what they have heard nothing of.
    pub(crate) fn take(&mut self, event: Key, place: Place) {
        let first = *self.places.entry(event.clone()).or_insert(place);
        if first != place {
            self.said_twice.push(Fault::SaidTwice { event, first, again: place });
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn has(&self, event: &Key) -> bool {
        self.places.contains_key(event)
    }

    /// Compares with all events of the log, in its order; `requests` are all that were made, each the events of one.
    pub(crate) fn faults(&mut self, events: &[RecordedEvent], requests: &[Vec<Key>]) -> Vec<Fault> {
        let mut faults = std::mem::take(&mut self.said_twice);
        let mut stands = HashMap::<Key, Place>::new();
        let mut versions = HashMap::<&StreamName, StreamVersion>::new();
        let mut expected = Position::START;
        for event in events {
            let key = (event.stream.clone(), event.id.clone());
            expected = expected.next();
            if event.position != expected {
                faults.push(Fault::PositionGap { position: event.position, expected });
                expected = event.position;
            }
            let version = versions.entry(&event.stream).or_default();
            *version = version.next();
            if event.stream_version != *version {
                let (found, expected) = (event.stream_version, *version);
                faults.push(Fault::VersionGap { event: key.clone(), version: found, expected });
                *version = found;
            }
            if stands.insert(key.clone(), (event.position, event.stream_version)).is_some() {
                faults.push(Fault::Doubled { event: key });
            }
        }
        for (event, acknowledged) in &self.places {
            let (event, acknowledged) = (event.clone(), *acknowledged);
            match stands.get(&event) {
                None => faults.push(Fault::Lost { event, acknowledged }),
                Some(stands) if *stands != acknowledged => {
                    faults.push(Fault::Moved { event, acknowledged, stands: *stands });
                }
                Some(_) => {}
            }
        }
        faults.extend(requests.iter().filter_map(|request| torn(request, &stands)));
        let asked: HashSet<&Key> = requests.iter().flatten().collect();
        let unasked = stands.keys().filter(|key| !asked.contains(key));
        faults.extend(unasked.map(|event| Fault::Unasked { event: event.clone() }));
        faults
    }
}

/// Whether one event of a request is there without another.
fn torn(request: &[Key], stands: &HashMap<Key, Place>) -> Option<Fault> {
    let present = request.iter().find(|key| stands.contains_key(key))?.clone();
    let missing = request.iter().find(|key| !stands.contains_key(key))?.clone();
    Some(Fault::Torn { present, missing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::all;
    use runledger_testkit::TempLedger;

    /// A log of three events in two streams, what was truly acknowledged of it, and the requests.
    fn told() -> (Vec<RecordedEvent>, Acknowledged, Vec<Vec<Key>>) {
        let ledger = TempLedger::new();
        let mut acknowledged = Acknowledged::default();
        let mut requests = Vec::new();
        for (stream, id) in [("session/a", "e1"), ("session/b", "e2"), ("session/a", "e3")] {
            let json = format!(r#"{{"id":"{id}","timestamp":1,"kind":"user.prompt","data":{{"prompt":"x"}}}}"#);
            let receipt = ledger.append(stream, &json);
            let (event, place) = parse(&line(&StreamName::new(stream).unwrap(), &receipt)).unwrap();
            acknowledged.take(event.clone(), place);
            requests.push(vec![event]);
        }
        (all(&ledger.log.reader().unwrap()), acknowledged, requests)
    }

    fn key(stream: &str, id: &str) -> Key {
        (StreamName::new(stream).unwrap(), EventId::new(id).unwrap())
    }

    fn place(position: u64, version: u64) -> Place {
        (Position(position), StreamVersion(version))
    }

    #[test]
    fn a_whole_log_has_no_faults() {
        let (events, mut acknowledged, requests) = told();
        assert_eq!(acknowledged.faults(&events, &requests), []);
        acknowledged.take(key("session/b", "e2"), place(2, 1));
        assert_eq!(acknowledged.faults(&events, &requests), [], "the same receipt again is none");
    }

    #[test]
    fn an_acknowledged_event_that_is_not_there_is_lost() {
        let (events, mut acknowledged, requests) = told();
        let (event, at) = (key("session/a", "made-up"), place(4, 3));
        acknowledged.take(event.clone(), at);
        assert_eq!(acknowledged.faults(&events, &requests), [Fault::Lost { event, acknowledged: at }]);
    }

    #[test]
    fn an_event_at_another_position_or_version_has_moved() {
        for (stands, other) in [(place(2, 1), place(3, 1)), (place(2, 1), place(2, 2))] {
            let (events, mut acknowledged, requests) = told();
            let event = key("session/b", "e2");
            acknowledged.places.insert(event.clone(), other);
            assert_eq!(acknowledged.faults(&events, &requests), [Fault::Moved { event, acknowledged: other, stands }]);
        }
    }

    #[test]
    fn two_different_receipts_of_one_event_are_told() {
        let (events, mut acknowledged, requests) = told();
        let event = key("session/b", "e2");
        acknowledged.take(event.clone(), place(9, 1));
        let (first, again) = (place(2, 1), place(9, 1));
        assert_eq!(acknowledged.faults(&events, &requests), [Fault::SaidTwice { event, first, again }]);
    }

    #[test]
    fn gaps_doubles_torn_requests_and_strangers_are_told() {
        let (mut events, _, requests) = told();
        let mut nothing = Acknowledged::default();
        // Gone from the middle.
        let gone = events.remove(1);
        assert_eq!(
            nothing.faults(&events, &requests),
            [Fault::PositionGap { position: Position(3), expected: Position(2) }]
        );
        // Gone from a stream.
        let (mut events, _, requests) = told();
        events.remove(0);
        let faults = nothing.faults(&events, &requests);
        assert!(faults.iter().any(|fault| matches!(fault, Fault::VersionGap { .. })), "{faults:?}");
        // There twice.
        let (mut events, _, requests) = told();
        events.push(RecordedEvent { position: Position(4), stream_version: StreamVersion(2), ..gone });
        assert_eq!(nothing.faults(&events, &requests), [Fault::Doubled { event: key("session/b", "e2") }]);
        // Half a request.
        let (events, _, mut requests) = told();
        let (present, missing) = (key("session/a", "e3"), key("session/b", "e4"));
        requests[2].push(missing.clone());
        assert_eq!(nothing.faults(&events, &requests), [Fault::Torn { present, missing }]);
        // Asked for by nobody.
        let (events, _, mut requests) = told();
        requests.pop();
        assert_eq!(nothing.faults(&events, &requests), [Fault::Unasked { event: key("session/a", "e3") }]);
    }
}
