//! `/openapi.json`: OpenAPI 3.1 from the table of routes.

use serde_json::{Map, Value, json};

use super::{
    problem::ProblemJson,
    route::{Content, Operation, Schemas, schema_of},
};

/// The document.
pub(crate) fn document(operations: &[Operation]) -> Value {
    let mut schemas = Schemas::new();
    let problem = schema_of::<ProblemJson>(&mut schemas);
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let described = describe(operation, &problem, &mut schemas);
        if let Value::Object(path) = paths.entry(operation.path).or_insert_with(|| json!({})) {
            path.insert(operation.method.as_str().to_ascii_lowercase(), described);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tamtam",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What customers do becomes text messages. Errors are RFC 9457 problem details. \
                            `traceparent` (W3C Trace Context) is carried on to every record that a call causes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key: `tt_…`."},
            },
        },
    })
}

fn describe(operation: &Operation, problem: &Value, schemas: &mut Schemas) -> Value {
    let mut roles = vec!["admin"];
    roles.extend(operation.roles.iter().map(|role| role.as_str()));
    let in_path = operation
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = operation.parameters.iter().map(|parameter| {
        let mut schema = json!({"type": parameter.kind});
        if parameter.kind == "date-time" {
            schema = json!({"type": "string", "format": "date-time"});
        }
        json!({"name": parameter.name, "in": "query", "required": false, "description": parameter.says, "schema": schema})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let answer = match &operation.gives {
        Some(content) => json!({"description": "Done.", "content": media([content], schemas)}),
        None => json!({"description": "Done."}),
    };
    let status = if operation.gives.is_some() { "200" } else { "204" };
    let mut described = json!({
        "summary": operation.says,
        "operationId": operation_id(operation),
        "tags": [operation.path.split('/').nth(2).unwrap_or_default()],
        "x-roles": roles,
        "parameters": parameters,
        "responses": {
            status: answer,
            "default": {
                "description": "An error.",
                "content": {"application/problem+json": {"schema": problem}},
            },
        },
    });
    if !operation.takes.is_empty() {
        described["requestBody"] = json!({"required": true, "content": media(&operation.takes, schemas)});
    }
    described
}

fn media<'a>(contents: impl IntoIterator<Item = &'a Content>, schemas: &mut Schemas) -> Value {
    let mut map = Map::new();
    for content in contents {
        let schema = match content.schema {
            Some(schema) => schema(schemas),
            None => json!({"type": "string"}),
        };
        map.insert(content.media.into(), json!({"schema": schema}));
    }
    Value::Object(map)
}

/// `post_campaigns_id_launch`: the method and the path, unique by construction.
fn operation_id(operation: &Operation) -> String {
    let path: String = operation
        .path
        .trim_start_matches("/v1/")
        .chars()
        .filter(|character| !matches!(character, '{' | '}'))
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '_'
            }
        })
        .collect();
    format!("{}_{path}", operation.method.as_str().to_ascii_lowercase())
}
