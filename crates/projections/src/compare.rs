//! Comparing the rows of two generations of a read model, table by table, in the order of their keys.

use std::cmp::Ordering;

use runledger_events::RunId;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, Statement};

use crate::projection::{Projection, Table, Target};

/// A row's values, its key's first.
pub(crate) type Values = Vec<Value>;

/// What stands in one of two tables, or in both but differently.
pub(crate) enum Difference {
    OnlyFirst { key: String },
    OnlySecond { key: String },
    Columns { key: String, columns: Vec<String> },
}

/// Hands each difference between two tables of the same shape to `take`; returns the rows of the first.
pub(crate) fn tables(
    table: &Table,
    first: (&Connection, &str),
    second: (&Connection, &str),
    mut take: impl FnMut(Difference),
) -> rusqlite::Result<u64> {
    let mut first_statement = ordered(table, first)?;
    let mut second_statement = ordered(table, second)?;
    let names: Vec<String> = first_statement.column_names().into_iter().map(str::to_owned).collect();
    let (mut first_rows, mut second_rows) = (first_statement.query([])?, second_statement.query([])?);
    let mut count = 0;
    // Rows are compared where SQLite has them: nearly all are alike, and nothing of them is copied.
    let (mut a, mut b) = (first_rows.next()?, second_rows.next()?);
    loop {
        let order = match (a, b) {
            (None, None) => return Ok(count),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => compare_keys(table, a, b)?,
        };
        match order {
            Ordering::Less => {
                if let Some(row) = a {
                    take(Difference::OnlyFirst { key: key(table, row)? });
                }
            }
            Ordering::Greater => {
                if let Some(row) = b {
                    take(Difference::OnlySecond { key: key(table, row)? });
                }
            }
            Ordering::Equal => {
                if let (Some(a), Some(b)) = (a, b) {
                    let mut columns = Vec::new();
                    for (index, name) in names.iter().enumerate() {
                        if a.get_ref(index)? != b.get_ref(index)? {
                            columns.push(name.clone());
                        }
                    }
                    if !columns.is_empty() {
                        take(Difference::Columns { key: key(table, a)?, columns });
                    }
                }
            }
        }
        if order != Ordering::Greater {
            count += 1;
            a = first_rows.next()?;
        }
        if order != Ordering::Less {
            b = second_rows.next()?;
        }
    }
}

/// The number of rows that differ between two generations on one connection.
pub(crate) fn count_changed(
    projection: &dyn Projection,
    before: &Target<'_>,
    after: &Target<'_>,
) -> rusqlite::Result<u64> {
    let mut changed = 0;
    for table in projection.tables() {
        let (old, new) = (before.table(table.name), after.table(table.name));
        tables(table, (before.connection, &old), (after.connection, &new), |_| changed += 1)?;
    }
    Ok(changed)
}

/// The rows of one run in all of a read model's tables that have runs, each with its table and key.
pub(crate) fn rows_of_run(
    target: &Target<'_>,
    projection: &dyn Projection,
    run_id: &RunId,
) -> rusqlite::Result<Vec<(String, Values)>> {
    let mut found = Vec::new();
    for table in projection.tables().iter().filter(|table| table.key.contains(&"run_id")) {
        let sql = format!(
            "SELECT {}, * FROM {} WHERE run_id = ?1 ORDER BY {}",
            table.key.join(", "),
            target.table(table.name),
            table.key.join(", ")
        );
        let mut statement = target.connection.prepare(&sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([run_id.as_str()])?;
        while let Some(row) = rows.next()? {
            let values = (0..columns).map(|index| row.get(index)).collect::<rusqlite::Result<Values>>()?;
            found.push((format!("{} {}", table.name, key(table, row)?), values));
        }
    }
    Ok(found)
}

/// The number of rows in one list and not, or not alike, in the other; a changed row counts once.
pub(crate) fn count_differences(before: &[(String, Values)], after: &[(String, Values)]) -> u64 {
    let lost_or_changed = before.iter().filter(|row| !after.contains(row)).count();
    let added = after.iter().filter(|(key, _)| !before.iter().any(|(known, _)| known == key)).count();
    u64::try_from(lost_or_changed + added).unwrap_or(u64::MAX)
}

fn ordered<'a>(table: &Table, (connection, name): (&'a Connection, &str)) -> rusqlite::Result<Statement<'a>> {
    let key = table.key.join(", ");
    connection.prepare(&format!("SELECT {key}, * FROM {name} ORDER BY {key}"))
}

fn compare_keys(table: &Table, a: &Row<'_>, b: &Row<'_>) -> rusqlite::Result<Ordering> {
    for index in 0..table.key.len() {
        let order = compare(a.get_ref(index)?, b.get_ref(index)?);
        if order.is_ne() {
            return Ok(order);
        }
    }
    Ok(Ordering::Equal)
}

/// As SQLite orders them, for the types that keys have.
fn compare(a: ValueRef<'_>, b: ValueRef<'_>) -> Ordering {
    match (a, b) {
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a.cmp(&b),
        (ValueRef::Text(a), ValueRef::Text(b)) | (ValueRef::Blob(a), ValueRef::Blob(b)) => a.cmp(b),
        (ValueRef::Integer(_), ValueRef::Text(_)) => Ordering::Less,
        (ValueRef::Text(_), ValueRef::Integer(_)) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

/// A row's key in words; its values stand first.
fn key(table: &Table, row: &Row<'_>) -> rusqlite::Result<String> {
    let mut parts = Vec::new();
    for (index, name) in table.key.iter().enumerate() {
        parts.push(match row.get_ref(index)? {
            ValueRef::Text(text) => format!("{name} {}", String::from_utf8_lossy(text)),
            ValueRef::Integer(number) => format!("{name} {number}"),
            ValueRef::Blob(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{name} {hex}")
            }
            other => format!("{name} {other:?}"),
        });
    }
    Ok(parts.join(", "))
}
