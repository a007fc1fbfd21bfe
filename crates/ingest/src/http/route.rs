//! The table of routes. A route is added once, with its path, the roles that may call it, its parameters and its types;
//! the router and `/openapi.json` are both made from it, so neither can know a route that the other does not.

use std::collections::BTreeMap;

use api::{Caller, Role};
use axum::{
    Router,
    extract::Request,
    handler::Handler,
    http::{Method, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Http, problem::Problem};

/// The schemas of a document, by name.
pub(crate) type Schemas = BTreeMap<String, Value>;

/// What a body is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub media: &'static str,
    pub schema: Option<fn(&mut Schemas) -> Value>,
}

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub name: &'static str,
    pub kind: &'static str,
    pub says: &'static str,
}

/// One operation: a method at a path.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub method: Method,
    pub path: &'static str,
    pub says: &'static str,
    /// Beside admins.
    pub roles: &'static [Role],
    pub parameters: Vec<Parameter>,
    pub takes: Vec<Content>,
    pub gives: Option<Content>,
}

impl Operation {
    pub(crate) fn query(mut self, name: &'static str, kind: &'static str, says: &'static str) -> Operation {
        self.parameters.push(Parameter { name, kind, says });
        self
    }

    pub(crate) fn takes<T: ToSchema>(self) -> Operation {
        self.takes_media("application/json", Some(schema_of::<T>))
    }

    pub(crate) fn takes_media(mut self, media: &'static str, schema: Option<fn(&mut Schemas) -> Value>) -> Operation {
        self.takes.push(Content { media, schema });
        self
    }

    pub(crate) fn gives<T: ToSchema>(self) -> Operation {
        self.gives_media("application/json", Some(schema_of::<T>))
    }

    pub(crate) fn gives_media(mut self, media: &'static str, schema: Option<fn(&mut Schemas) -> Value>) -> Operation {
        self.gives = Some(Content { media, schema });
        self
    }
}

pub(crate) fn get(path: &'static str, roles: &'static [Role], says: &'static str) -> Operation {
    operation(Method::GET, path, roles, says)
}

pub(crate) fn post(path: &'static str, roles: &'static [Role], says: &'static str) -> Operation {
    operation(Method::POST, path, roles, says)
}

pub(crate) fn put(path: &'static str, roles: &'static [Role], says: &'static str) -> Operation {
    operation(Method::PUT, path, roles, says)
}

pub(crate) fn delete(path: &'static str, roles: &'static [Role], says: &'static str) -> Operation {
    operation(Method::DELETE, path, roles, says)
}

fn operation(method: Method, path: &'static str, roles: &'static [Role], says: &'static str) -> Operation {
    Operation {
        method,
        path,
        says,
        roles,
        parameters: Vec::new(),
        takes: Vec::new(),
        gives: None,
    }
}

/// A type's schema, with all that it refers to.
pub(crate) fn schema_of<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut found = Vec::new();
    T::schemas(&mut found);
    found.push((T::name().into_owned(), T::schema()));
    for (name, schema) in found {
        // A schema is plain data: there is nothing in it that JSON could not hold.
        schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
    serde_json::json!({"$ref": format!("#/components/schemas/{}", T::name())})
}

/// Routes as they are added.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    pub router: Router<Http>,
    pub operations: Vec<Operation>,
}

impl Routes {
    /// Serves an operation. A caller of another role is refused before the request's body is read.
    pub(crate) fn add<H, T>(self, operation: Operation, handler: H) -> Routes
    where
        H: Handler<T, Http>,
        T: 'static,
    {
        let mut routes = self.add_unlisted(operation.clone(), handler);
        routes.operations.push(operation);
        routes
    }

    /// Serves an operation that another one's path with a parameter describes already.
    pub(crate) fn add_unlisted<H, T>(mut self, operation: Operation, handler: H) -> Routes
    where
        H: Handler<T, Http>,
        T: 'static,
    {
        let roles = operation.roles;
        let filter = match operation.method {
            Method::POST => MethodFilter::POST,
            Method::PUT => MethodFilter::PUT,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let guarded = on(filter, handler).route_layer(from_fn(move |request, next| require(roles, request, next)));
        self.router = self.router.route(operation.path, guarded);
        self
    }
}

async fn require(roles: &'static [Role], request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>().map(|caller| caller.require(roles)) {
        Some(Ok(())) => next.run(request).await,
        Some(Err(error)) => Problem::from(error).into_response(),
        None => Problem::new(StatusCode::UNAUTHORIZED, "no API key").into_response(),
    }
}
