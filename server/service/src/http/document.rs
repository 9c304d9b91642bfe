//! The API's description, made of the same routes and types that serve.

use aide::axum::ApiRouter;
use aide::axum::routing::get_with;
use aide::generate::GenContext;
use aide::openapi::{
    Components, Info, License, MediaType, OpenApi, Operation, Parameter, ParameterData,
    ParameterSchemaOrContent, PathStyle, ReferenceOr, RequestBody, Response, SchemaObject,
    SecurityScheme, StatusCode,
};
use aide::transform::TransformOperation;
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Extension, Router};
use bytes::Bytes;
use s0_api::ErrorBody;
use s0_api::tokens::Permission;
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::Value;

const TOKEN: &str = "token";
const JSON: &str = "application/json";
pub(super) const OCTETS: &str = "application/octet-stream";

fn media(schema: Option<Schema>) -> MediaType {
    let schema =
        schema.map(|json_schema| SchemaObject { json_schema, example: None, external_docs: None });
    MediaType { schema, ..MediaType::default() }
}

/// An answer whose body is of one kind.
pub(super) fn response(description: &str, kind: &str, schema: Option<Schema>) -> Response {
    let content = [(kind.to_owned(), media(schema))].into_iter().collect();
    Response { description: description.into(), content, ..Response::default() }
}

/// An answer with data in the envelope.
pub(super) fn success<T: JsonSchema>(ctx: &mut GenContext) -> Response {
    let data = ctx.schema.subschema_for::<T>();
    let schema = json_schema!({
        "type": "object",
        "required": ["success", "data"],
        "properties": {"success": {"const": true}, "data": data},
    });
    response("It is so.", JSON, Some(schema))
}

/// The answers of some statuses in which something is refused.
pub(super) fn failures(ctx: &mut GenContext, statuses: &[u16]) -> Vec<(Option<u16>, Response)> {
    statuses.iter().map(|status| (Some(*status), failure(ctx, *status))).collect()
}

fn failure(ctx: &mut GenContext, status: u16) -> Response {
    let why = match status {
        400 => "The request would be wrong in any Volume.",
        401 => "No token, or one that opens nothing.",
        403 => "The token does not allow this, or the file's mode.",
        404 => "It is not there, or another team's.",
        409 => "It does not go with what is there.",
        413 => "Too large.",
        416 => "The range lies outside.",
        507 => "The Volume's quota has no room for it.",
        500 => "The service failed, or what it stores is damaged.",
        _ => "The store did not answer; the same request may succeed later.",
    };
    let error = ctx.schema.subschema_for::<ErrorBody>();
    let schema = json_schema!({
        "type": "object",
        "required": ["success", "error"],
        "properties": {"success": {"const": false}, "error": error},
    });
    response(why, JSON, Some(schema))
}

/// A body of bytes.
pub(super) fn octets() -> RequestBody {
    let content = [(OCTETS.to_owned(), media(None))].into_iter().collect();
    RequestBody { content, ..RequestBody::default() }
}

/// A body that is a JSON object.
pub(super) fn json_body<T: JsonSchema>(ctx: &mut GenContext, required: bool) -> RequestBody {
    let schema = ctx.schema.subschema_for::<T>();
    let content = [(JSON.to_owned(), media(Some(schema)))].into_iter().collect();
    RequestBody { content, required, ..RequestBody::default() }
}

/// Notes that an operation wants a token, and what it must allow.
pub(super) fn needs_token(operation: &mut Operation, permission: Option<Permission>) {
    let scopes = permission.map(|permission| permission.as_str().to_owned()).into_iter().collect();
    operation.security = vec![[(TOKEN.to_owned(), scopes)].into_iter().collect()];
}

/// What a route does, and how its handler itself refuses, beside what its extractors
/// refuse and what any route may answer.
pub(super) fn does(
    what: &str,
    refusals: &'static [u16],
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        let mut operation = operation.summary(what);
        aide::generate::in_context(|ctx| {
            for (status, response) in failures(ctx, refusals) {
                put(operation.inner_mut(), status.unwrap_or_default(), response);
            }
        });
        operation
    }
}

/// The same of a route that answers with something else than an envelope.
pub(super) fn gives(
    what: &str,
    answers: &'static [(u16, &'static str)],
    refusals: &'static [u16],
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |operation| {
        let mut operation = does(what, refusals)(operation);
        for (status, kind) in answers {
            let mut answer = response("It is so.", kind, None);
            if kind.is_empty() {
                answer.content.clear();
            }
            put(operation.inner_mut(), *status, answer);
        }
        operation
    }
}

/// Adds an answer; one of a status that has one already is one more form of it.
pub(super) fn put(operation: &mut Operation, status: u16, response: Response) {
    let all = &mut operation.responses.get_or_insert_default().responses;
    match all.get_mut(&StatusCode::Code(status)) {
        Some(ReferenceOr::Item(known)) => known.content.extend(response.content),
        _ => {
            all.insert(StatusCode::Code(status), ReferenceOr::Item(response));
        }
    }
}

/// Finishes the routes, with their description at `/openapi.json`.
pub(super) fn finish<S: Clone + Send + Sync + 'static>(routes: ApiRouter<S>) -> Router<S> {
    let about = gives("This description.", &[(200, JSON)], &[]);
    let routes = routes.api_route("/openapi.json", get_with(serve, about));
    let mut api = OpenApi {
        info: Info {
            title: "s0 sync, Volume service".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            license: Some(License {
                name: "Apache License 2.0".into(),
                identifier: Some("Apache-2.0".into()),
                ..License::default()
            }),
            ..Info::default()
        },
        components: Some(Components {
            security_schemes: [(TOKEN.to_owned(), ReferenceOr::Item(bearer()))]
                .into_iter()
                .collect(),
            ..Components::default()
        }),
        ..OpenApi::default()
    };
    let router = routes.finish_api(&mut api);
    name_parts_of_paths(&mut api);
    // Plain data goes into memory, which does not fail.
    let mut json = serde_json::to_value(&api).unwrap_or_default();
    forget_null_defaults(&mut json);
    router.layer(Extension(Document(json.to_string().into())))
}

/// What may be left out has no value then, which a default of null would deny.
fn forget_null_defaults(json: &mut Value) {
    match json {
        Value::Object(all) => {
            all.retain(|key, value| key != "default" || !value.is_null());
            all.values_mut().for_each(forget_null_defaults);
        }
        Value::Array(all) => all.iter_mut().for_each(forget_null_defaults),
        _ => {}
    }
}

#[derive(Clone)]
struct Document(Bytes);

async fn serve(Extension(Document(json)): Extension<Document>) -> axum::response::Response {
    ([(header::CONTENT_TYPE, JSON)], json).into_response()
}

fn bearer() -> SecurityScheme {
    SecurityScheme::Http {
        scheme: "bearer".into(),
        bearer_format: None,
        description: Some("A token; see `/api-keys`.".into()),
        extensions: Default::default(),
    }
}

/// Each `{name}` of a path is a parameter of its operations.
fn name_parts_of_paths(api: &mut OpenApi) {
    for (path, item) in api.paths.iter_mut().flat_map(|paths| paths.paths.iter_mut()) {
        let ReferenceOr::Item(item) = item else { continue };
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        item.parameters = names.map(|name| ReferenceOr::Item(part_of_path(name))).collect();
    }
}

fn part_of_path(name: &str) -> Parameter {
    let json_schema = json_schema!({"type": "string"});
    Parameter::Path {
        parameter_data: ParameterData {
            name: name.into(),
            description: None,
            required: true,
            deprecated: None,
            format: ParameterSchemaOrContent::Schema(SchemaObject {
                json_schema,
                example: None,
                external_docs: None,
            }),
            example: None,
            examples: Default::default(),
            explode: None,
            extensions: Default::default(),
        },
        style: PathStyle::Simple,
    }
}
