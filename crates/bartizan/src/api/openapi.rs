//! The OpenAPI 3.1 document, out of the same declarations as the routes.

use std::collections::{BTreeSet, HashSet};

use bartizan_core::error::Problem;
use bartizan_core::input::IdempotencyKey;
use http::StatusCode;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::fault::{Fault, Flaw};
use super::incoming::limit;
use super::row::{Access, RateClass, Row, Verb};
use super::schema::{BodyShape, Description, Parameter, Presence, Shape, gaps, is_scalar, parameters};

/// What the document says about itself.
#[derive(Clone, Debug)]
pub struct Info {
    /// The name of the interface.
    pub title: String,
    /// Its version.
    pub version: String,
    /// The licence as an SPDX expression.
    pub license: String,
}

/// Builds the document; what is wrong with a row's types is added to `faults`.
pub(super) fn document(rows: &[(&Row, &Description)], adopted: &[&Row], info: &Info, faults: &mut Vec<Fault>) -> Value {
    let mut writer = Writer::new(faults);
    let mut paths: Map<String, Value> = Map::new();
    let mut tags = BTreeSet::new();
    for (row, description) in rows {
        let operation = writer.operation(row, description);
        let path = paths.entry(row.path.clone()).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(row.method.as_str().to_ascii_lowercase(), operation);
        }
        tags.extend(row.tags.iter().copied());
    }
    let mut schemas = writer.output.definitions().clone();
    schemas.extend(writer.input.definitions().clone());
    let adopted: Vec<Value> =
        adopted.iter().map(|row| json!({ "prefix": row.path, "why": row.adopted, "access": row.access })).collect();
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": info.title,
            "version": info.version,
            "license": { "name": info.license, "identifier": info.license }
        },
        "tags": tags.into_iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "x-adopted": adopted,
        "components": {
            "schemas": schemas,
            "parameters": { "IdempotencyKey": idempotency_key() },
            "responses": problems(writer.problem),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } }
        }
    })
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "Makes a repetition of the same request give the first one's answer.",
        "schema": SchemaGenerator::default().subschema_for::<IdempotencyKey>()
    })
}

fn problems(schema: Value) -> Value {
    let content = json!({ "application/problem+json": { "schema": schema } });
    json!({
        "Problem": { "description": "A problem (RFC 9457).", "content": content },
        "TooManyRequests": {
            "description": "A limit is exhausted; `violated-policies` says which.",
            "headers": {
                "Retry-After": {
                    "description": "Whole seconds to wait.",
                    "schema": { "type": "integer", "minimum": 0, "maximum": 86_400 }
                }
            },
            "content": content
        }
    })
}

/// Two generators, since a type may look different read and written.
struct Writer<'a> {
    input: SchemaGenerator,
    output: SchemaGenerator,
    /// For parameters, which are single values and stand in place.
    inline: SchemaGenerator,
    problem: Value,
    /// Names already found at fault.
    told: HashSet<String>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Writer<'a> {
    fn new(faults: &'a mut Vec<Fault>) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        let mut output = settings.clone().for_serialize().into_generator();
        let problem = output.subschema_for::<Problem>().to_value();
        Self {
            input: settings.clone().for_deserialize().into_generator(),
            inline: settings.with(|settings| settings.inline_subschemas = true).for_deserialize().into_generator(),
            output,
            problem,
            told: HashSet::new(),
            faults,
        }
    }

    fn fault(&mut self, row: &Row, flaw: Flaw) {
        self.faults.push(Fault::new(row, flaw));
    }

    fn operation(&mut self, row: &Row, description: &Description) -> Value {
        let mut list = self.path_parameters(row, description);
        list.extend(self.query_parameters(row, description));
        if row.csrf.is_some() {
            list.push(json!({ "$ref": "#/components/parameters/IdempotencyKey" }));
        }
        let body = description.body.as_ref().map(|body| self.body(row, body));
        let answer = description.answer.and_then(|schema| schema(&mut self.output));
        self.names(row);
        let security = match row.access {
            Access::Requires { .. } => json!([{ "bearer": [] }]),
            Access::Public { .. } => json!([]),
        };
        let mut operation = json!({
            "operationId": row.operation_id,
            "summary": row.summary,
            "parameters": list,
            "responses": responses(row, description, answer.map(|schema| schema.to_value())),
            "security": security,
            "x-access": row.access,
            "x-rate": row.rate,
            "x-cache": row.cache,
        });
        if let Some(map) = operation.as_object_mut() {
            if !row.tags.is_empty() {
                map.insert("tags".into(), json!(row.tags));
            }
            if let Some(csrf) = row.csrf {
                map.insert("x-csrf".into(), json!(csrf));
            }
            if let Some(body) = body {
                map.insert("requestBody".into(), body);
                map.insert("x-body-limit".into(), json!(limit(row)));
            }
        }
        operation
    }

    /// One field for each `{parameter}` and the reverse; or one parameter whose type is a single value.
    fn path_parameters(&mut self, row: &Row, description: &Description) -> Vec<Value> {
        if description.path.len() > 1 {
            self.fault(row, Flaw::ArgumentTwice("Path"));
        }
        let mut fields = Vec::new();
        if let Some(shape) = description.path.first() {
            let schema = self.checked(row, shape);
            match (parameters(&schema), row.parameters().next(), row.parameters().count()) {
                (Some(found), ..) => fields = found,
                (None, Some(name), 1) if is_scalar(&schema) => {
                    fields = vec![Parameter { name: name.to_owned(), schema, presence: Presence::Required }];
                }
                _ => self.fault(row, Flaw::NotFlat("Path", shape.type_name.to_owned())),
            }
        }
        for name in row.parameters().filter(|name| fields.iter().all(|field| field.name != *name)) {
            self.fault(row, Flaw::ParameterUnread(name.to_owned()));
        }
        for field in fields.iter().filter(|field| row.parameters().all(|name| name != field.name)) {
            self.fault(row, Flaw::ParameterMissing(field.name.clone()));
        }
        fields
            .into_iter()
            .map(|field| json!({ "name": field.name, "in": "path", "required": true, "schema": field.schema }))
            .collect()
    }

    fn query_parameters(&mut self, row: &Row, description: &Description) -> Vec<Value> {
        if description.query.len() > 1 {
            self.fault(row, Flaw::ArgumentTwice("Query"));
        }
        let Some(shape) = description.query.first() else { return Vec::new() };
        let schema = self.checked(row, shape);
        let Some(fields) = parameters(&schema) else {
            self.fault(row, Flaw::NotFlat("Query", shape.type_name.to_owned()));
            return Vec::new();
        };
        let parameter = |field: Parameter| {
            let mut schema = field.schema;
            let description = schema.as_object_mut().and_then(|map| map.remove("description"));
            let required = field.presence == Presence::Required;
            let mut parameter = json!({ "name": field.name, "in": "query", "required": required, "schema": schema });
            if let (Some(map), Some(text)) = (parameter.as_object_mut(), description) {
                map.insert("description".into(), text);
            }
            parameter
        };
        fields.into_iter().map(parameter).collect()
    }

    /// The schema of a query or path type, in place, with its gaps told.
    fn checked(&mut self, row: &Row, shape: &Shape) -> Value {
        let schema = (shape.generate)(&mut self.inline).to_value();
        let gaps = gaps(&schema, self.inline.definitions());
        self.tell(row, shape, gaps);
        schema
    }

    fn body(&mut self, row: &Row, body: &BodyShape) -> Value {
        if row.method == Verb::Get {
            self.fault(row, Flaw::BodyOnRead);
        }
        let schema = (body.shape.generate)(&mut self.input).to_value();
        let gaps = gaps(&schema, self.input.definitions());
        self.tell(row, &body.shape, gaps);
        let required = body.presence == Presence::Required;
        json!({ "required": required, "content": { body.media.as_str(): { "schema": schema } } })
    }

    fn tell(&mut self, row: &Row, shape: &Shape, gaps: Vec<(String, &'static str)>) {
        for (at, rule) in gaps {
            self.fault(row, Flaw::InputOpen { type_name: shape.type_name.to_owned(), at, rule });
        }
    }

    /// Looks for names that two types share, in either direction or across both.
    ///
    /// schemars renames the second `Name` to `Name2` without a word, by order of appearance; so a `Name2` beside a `Name`
    /// is told even where a type is really called that.
    fn names(&mut self, row: &Row) {
        let mut found = Vec::new();
        for definitions in [self.input.definitions(), self.output.definitions()] {
            for name in definitions.keys() {
                let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
                if base != name && definitions.contains_key(base) {
                    found.push((base.to_owned(), Flaw::NameClash(base.to_owned())));
                }
            }
        }
        for (name, read) in self.input.definitions() {
            if self.output.definitions().get(name).is_some_and(|written| written != read) {
                found.push((name.clone(), Flaw::InputOutputDiffer(name.clone())));
            }
        }
        for (name, flaw) in found {
            if self.told.insert(name) {
                self.fault(row, flaw);
            }
        }
    }
}

/// Success, every refusal a row can give, and the rest as `default`.
fn responses(row: &Row, description: &Description, answer: Option<Value>) -> Value {
    let status = StatusCode::from_u16(description.status).unwrap_or(StatusCode::OK);
    let mut success = json!({ "description": status.canonical_reason().unwrap_or("Success") });
    if let (Some(map), Some(schema)) = (success.as_object_mut(), answer) {
        map.insert("content".into(), json!({ "application/json": { "schema": schema } }));
    }
    let guarded = matches!(row.access, Access::Requires { .. });
    let changes = row.csrf.is_some();
    let body = description.body.is_some();
    let query = !description.query.is_empty();
    let path = !description.path.is_empty();
    let mut responses = Map::new();
    responses.insert(status.as_u16().to_string(), success);
    for (code, possible) in [
        (400, changes || body || query || path),
        (401, guarded || matches!(row.rate, RateClass::Login | RateClass::Token)),
        (403, true),
        (404, path),
        (409, changes),
        (413, changes),
        (415, body),
        (422, body || query),
    ] {
        if possible {
            responses.insert(code.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
        }
    }
    responses.insert("429".into(), json!({ "$ref": "#/components/responses/TooManyRequests" }));
    responses.insert("default".into(), json!({ "$ref": "#/components/responses/Problem" }));
    Value::Object(responses)
}
