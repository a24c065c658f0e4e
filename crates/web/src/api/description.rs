//! The description of the interface, OpenAPI 3.1, out of the types that its answers are made by.

use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::asking::LIMIT_MAX;
use crate::failure::Failure;

/// One way to ask, or to act.
pub(super) struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    about: &'static str,
    words: Option<Describe>,
    body: Option<Describe>,
    answer: Describe,
    is_stream_too: bool,
}

type Describe = fn(&mut SchemaGenerator) -> Schema;

impl Operation {
    pub(super) fn get<A: JsonSchema, T: JsonSchema>(path: &'static str, id: &'static str, about: &'static str) -> Self {
        let (words, answer) = (Some(A::json_schema as Describe), described::<T> as Describe);
        Self { method: "get", path, id, about, words, body: None, answer, is_stream_too: false }
    }

    pub(super) fn post<A: JsonSchema, T: JsonSchema>(
        path: &'static str,
        id: &'static str,
        about: &'static str,
    ) -> Self {
        let (body, answer) = (Some(described::<A> as Describe), described::<T> as Describe);
        Self { method: "post", path, id, about, words: None, body, answer, is_stream_too: false }
    }

    /// The same, which also answers with a stream.
    pub(super) fn or_stream(self) -> Self {
        Self { is_stream_too: true, ..self }
    }

    fn describe(&self, asked: &mut SchemaGenerator, answered: &mut SchemaGenerator) -> Value {
        let answer = (self.answer)(answered);
        let mut content = json!({ "application/json": { "schema": answer } });
        if self.is_stream_too {
            content["text/event-stream"] = json!({ "schema": { "type": "string" } });
        }
        let mut responses = json!({ "200": { "description": "What was asked for", "content": content } });
        let parameters = self.parameters(asked);
        // Whoever names a run, or a place in the log, may name one that is not there.
        let names_one = self.path.contains('{') || parameters.iter().any(|one| one["name"] == "run");
        let named: &[&str] = if names_one || self.is_stream_too { &["404"] } else { &[] };
        let acts: &[&str] = if self.body.is_some() { &["403", "404", "409", "413", "415"] } else { &[] };
        for status in ["400", "401", "421", "500", "503"].iter().chain(named).chain(acts) {
            responses[*status] = json!({ "$ref": "#/components/responses/Failure" });
        }
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.about,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(body) = self.body {
            let content = json!({ "application/json": { "schema": body(asked) } });
            operation["requestBody"] = json!({ "required": true, "content": content });
        }
        operation
    }

    fn parameters(&self, asked: &mut SchemaGenerator) -> Vec<Value> {
        let names = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let name = |name: &str| {
            let schema = match name {
                "position" => json!({ "type": "integer", "minimum": 1, "maximum": i64::MAX }),
                _ => json!({ "type": "string", "minLength": 1 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        };
        let mut parameters: Vec<Value> = names.map(name).collect();
        let words = self.words.map(|words| words(asked).to_value()).unwrap_or_default();
        let required = words.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for (name, schema) in words.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let mut schema = without_null(schema.clone());
            let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let is_required = required.iter().any(|required| required == name);
            let mut parameter = json!({ "name": name, "in": "query", "required": is_required, "schema": schema });
            if let Some(about) = about {
                parameter["description"] = about;
            }
            parameters.push(parameter);
        }
        if self.is_stream_too {
            let about = "The position of the last event that a stream told, which goes on behind it";
            parameters.push(json!({
                "name": "Last-Event-ID", "in": "header", "required": false, "description": about,
                "schema": { "type": "integer", "minimum": 0 }
            }));
        }
        parameters
    }
}

/// A reference to a type's schema, or the schema itself where it has no name.
fn described<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A word of an address is there or not, and never null.
fn without_null(mut schema: Value) -> Value {
    if let Some(kinds) = schema.get_mut("type").filter(|kinds| kinds.is_array()) {
        let kept = kinds.as_array().into_iter().flatten().find(|kind| *kind != "null").cloned();
        *kinds = kept.unwrap_or_default();
    }
    let some =
        schema.get("anyOf").and_then(Value::as_array).and_then(|any| any.iter().find(|one| one["type"] != "null"));
    if let Some(some) = some.cloned() {
        let about = schema.get("description").cloned();
        schema = some;
        if let Some(about) = about {
            schema["description"] = about;
        }
    }
    schema
}

/// The whole description.
pub(super) fn describe(operations: &[Operation]) -> Value {
    let generator = |contract: Contract| {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.contract = contract;
        settings.into_generator()
    };
    let mut asked = generator(Contract::Deserialize);
    let mut answered = generator(Contract::Serialize);
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let described = operation.describe(&mut asked, &mut answered);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    let failure = described::<Failure>(&mut answered);
    let mut schemas = asked.take_definitions(true);
    schemas.extend(answered.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "runledger",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "The ledger of what coding agents did: the objects of the program's --json, read and act. Times are Unix \
                 milliseconds. Lists have at most {LIMIT_MAX} items, and say where the next page begins."
            ),
        },
        "servers": [{ "url": "/api/v1" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": {
                "type": "http", "scheme": "bearer",
                "description": "The token that `runledger serve` prints, or RUNLEDGER_TOKEN"
            } },
            "responses": { "Failure": {
                "description": "Why there is no such answer, and what to do next",
                "content": { "application/json": { "schema": failure } }
            } },
            "schemas": schemas,
        },
    })
}
