//! What handlers take out of a request: who asks, about what, and with what. Each
//! extractor also tells the API's description what it takes, and how it refuses.

use std::marker::PhantomData;
use std::sync::Arc;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described};
use aide::operation::{ParamLocation, add_parameters, parameters_from_schema, set_body};
use axum::body::BodyDataStream;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use bytes::Bytes;
use s0_api::tokens::Permission;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use super::document::{self, failures};
use crate::caller::Caller;
use crate::journal::Purpose;
use crate::problem::Problem;
use crate::service::Service;
use crate::volume::Hot;

/// What the Volume is called in the paths of routes.
const VOLUME: &str = "volume";
/// And the sandbox.
const SANDBOX: &str = "sandbox";

type Refusals = Vec<(Option<u16>, Described)>;

/// Who asks, with whatever token.
async fn bearer(parts: &Parts, service: &Service) -> Result<Caller, Problem> {
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or(Problem::Unauthorized("a bearer token is needed"))?;
    service.caller(token).await
}

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<Service>,
    ) -> Result<Self, Problem> {
        let caller = bearer(parts, service).await?;
        // What a limited token opens is said where it does.
        if caller.token.limit.is_none() { Ok(caller) } else { Err(Problem::FORBIDDEN) }
    }
}

impl OperationInput for Caller {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        document::needs_token(operation, None);
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Refusals {
        failures(ctx, &[401, 403])
    }
}

/// A permission, as a type.
pub(super) trait Allows: Send + Sync {
    const PERMISSION: Permission;
    /// Whether a token that is limited to a mount of the Volume in the path may ask, too.
    const MOUNTS: bool = false;
    /// Whether a token that is limited to letting the sandbox in the path be reached may.
    const ATTENDS: bool = false;
}

macro_rules! permissions {
    ($($name:ident),*) => {$(
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name;
        impl Allows for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )*};
}
permissions!(CreateVolume, ReadVolume, WriteVolume, DeleteVolume, ReadFile, WriteFile);

/// What a permission is for where mounts ask, too.
pub(super) struct OrMount<P>(PhantomData<P>);
impl<P: Allows> Allows for OrMount<P> {
    const PERMISSION: Permission = P::PERMISSION;
    const MOUNTS: bool = true;
}

/// What a permission is for where the wardens of sandboxes ask, too.
pub(super) struct OrWarden<P>(PhantomData<P>);
impl<P: Allows> Allows for OrWarden<P> {
    const PERMISSION: Permission = P::PERMISSION;
    const ATTENDS: bool = true;
}

/// One who may do this.
pub(super) struct May<P> {
    pub(super) caller: Caller,
    permission: PhantomData<P>,
}

impl<P: Allows> FromRequestParts<Arc<Service>> for May<P> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &Arc<Service>) -> Result<Self, Problem> {
        let caller = bearer(parts, state).await?;
        let all = in_path(parts).await;
        let is_here = |name: &str, id: &str| all.iter().flatten().any(|part| part == (name, id));
        match caller.token.limit.as_ref().map(|limit| &limit.purpose) {
            None => caller.may(P::PERMISSION)?,
            Some(Purpose::Mount { volume, .. }) if P::MOUNTS && is_here(VOLUME, volume) => {
                caller.may(P::PERMISSION)?;
            }
            // It is the one thing that such a token allows.
            Some(Purpose::Attend { sandbox }) if P::ATTENDS && is_here(SANDBOX, sandbox) => {}
            Some(_) => return Err(Problem::FORBIDDEN),
        }
        Ok(Self { caller, permission: PhantomData })
    }
}

impl<P: Allows> OperationInput for May<P> {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        document::needs_token(operation, Some(P::PERMISSION));
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Refusals {
        failures(ctx, &[401, 403])
    }
}

/// What is said not to be found, where a Volume is not.
pub(super) trait Unknown: Send + Sync {
    const UNKNOWN: &'static str;
}

/// No more than that.
pub(super) struct Plainly;
impl Unknown for Plainly {
    const UNKNOWN: &'static str = "not found";
}

/// That it is the Volume.
pub(super) struct AsVolume;
impl Unknown for AsVolume {
    const UNKNOWN: &'static str = "volume not found";
}

/// That there is no such snapshot.
pub(super) struct AsSnapshot;
impl Unknown for AsSnapshot {
    const UNKNOWN: &'static str = "snapshot not found";
}

/// The Volume of the path, and one of its team who may do this with it.
pub(super) struct Volume<P, U = Plainly> {
    pub(super) caller: Caller,
    pub(super) hot: Arc<Hot>,
    kind: PhantomData<(P, U)>,
}

impl<P, U> Volume<P, U> {
    pub(super) fn id(&self) -> &str {
        &self.hot.record.id
    }

    pub(super) fn team(&self) -> &str {
        &self.caller.team
    }
}

impl<P: Allows, U: Unknown> FromRequestParts<Arc<Service>> for Volume<P, U> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &Arc<Service>) -> Result<Self, Problem> {
        let May { caller, .. } = May::<P>::from_request_parts(parts, state).await?;
        let all = in_path(parts).await?;
        let id = all.iter().find(|(name, _)| *name == VOLUME).map_or("", |(_, id)| id);
        let found = state.volume(&caller, id).await;
        let hot = found.map_err(|problem| problem.not_found_as(U::UNKNOWN))?;
        Ok(Self { caller, hot, kind: PhantomData })
    }
}

impl<P: Allows, U: Unknown> OperationInput for Volume<P, U> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        May::<P>::operation_input(ctx, operation);
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Refusals {
        failures(ctx, &[400, 401, 403, 404])
    }
}

async fn in_path(parts: &mut Parts) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|rejection| Problem::BadRequest(rejection.body_text()))
}

/// The last id of the path.
pub(super) struct Named(pub(super) String);

impl FromRequestParts<Arc<Service>> for Named {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Service>) -> Result<Self, Problem> {
        let all = in_path(parts).await?;
        let last = all.iter().last().map(|(_, id)| id.to_owned());
        last.map(Self).ok_or_else(|| Problem::Internal("a route without an id".into()))
    }
}

impl OperationInput for Named {
    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Refusals {
        failures(ctx, &[400])
    }
}

/// The sandbox of the path.
pub(super) struct Sandbox(pub(super) String);

impl FromRequestParts<Arc<Service>> for Sandbox {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Service>) -> Result<Self, Problem> {
        let all = in_path(parts).await?;
        let id = all.iter().find(|(name, _)| *name == SANDBOX).map(|(_, id)| id.to_owned());
        id.map(Self).ok_or_else(|| Problem::Internal("a route without a sandbox".into()))
    }
}

impl OperationInput for Sandbox {
    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Refusals {
        failures(ctx, &[400])
    }
}

/// The query of the URL.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Service>> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Service>) -> Result<Self, Problem> {
        is_utf8(&parts.uri)?;
        Query::try_from_uri(&parts.uri)
            .map(|Query(all)| Self(all))
            .map_err(|rejection| Problem::BadRequest(rejection.body_text()))
    }
}

/// Refuses a query that is not UTF-8: reading it would put other characters in the
/// place of those that are wrong.
fn is_utf8(uri: &Uri) -> Result<(), Problem> {
    let query = uri.query().unwrap_or_default().as_bytes();
    let mut decoded = Vec::with_capacity(query.len());
    let mut rest = query;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.get(..2)).flatten();
        let escaped = escaped.and_then(|two| std::str::from_utf8(two).ok());
        match escaped.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    std::str::from_utf8(&decoded).map(|_| ()).map_err(|_| Problem::bad("the query is not UTF-8"))
}

impl<T: JsonSchema> OperationInput for Params<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        let schema = ctx.schema.subschema_for::<T>();
        let all = parameters_from_schema(ctx, schema, ParamLocation::Query);
        add_parameters(ctx, operation, all);
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Refusals {
        failures(ctx, &[400])
    }
}

/// A number of the query; nothing is the same as its absence.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    match text.trim() {
        "" => Ok(None),
        text => {
            text.parse().map(Some).map_err(|_| D::Error::custom(format!("{text:?} is no number")))
        }
    }
}

/// A documented limit: 256 when absent or not positive, at most 2048.
pub(super) fn limited(asked: Option<i64>) -> usize {
    let limit = asked.filter(|limit| *limit > 0).unwrap_or(256);
    usize::try_from(limit).unwrap_or(usize::MAX).min(2048)
}

/// A JSON object. Anything else is refused here: of an array, serde would take
/// the values for those of the fields, in their order.
pub(super) fn object<T: DeserializeOwned>(json: &[u8], what: &str) -> Result<T, Problem> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::BadRequest(format!("the {what} is not a JSON object")));
    }
    serde_json::from_slice(json)
        .map_err(|error| Problem::BadRequest(format!("the {what} cannot be read: {error}")))
}

/// The body of the request, up to the route's limit.
pub(super) struct Whole(pub(super) Bytes);

impl FromRequest<Arc<Service>> for Whole {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &Arc<Service>) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::TooLarge("the body is too large"),
                _ => Problem::BadRequest(rejection.body_text()),
            }
        })
    }
}

impl OperationInput for Whole {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        set_body(ctx, operation, document::octets());
    }

    fn inferred_early_responses(ctx: &mut GenContext, _: &mut Operation) -> Refusals {
        failures(ctx, &[400, 413])
    }
}

/// A body that is read as it arrives.
pub(super) struct Incoming {
    pub(super) body: BodyDataStream,
    /// How many bytes it says that it has.
    pub(super) length: Option<u64>,
}

impl FromRequest<Arc<Service>> for Incoming {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &Arc<Service>) -> Result<Self, Problem> {
        let body = request.into_body();
        Ok(Self {
            length: axum::body::HttpBody::size_hint(&body).exact(),
            body: body.into_data_stream(),
        })
    }
}

impl OperationInput for Incoming {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        set_body(ctx, operation, document::octets());
    }
}

/// A body that is a JSON object.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Service>> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &Arc<Service>) -> Result<Self, Problem> {
        let Whole(body) = Whole::from_request(request, state).await?;
        object(&body, "body").map(Self)
    }
}

impl<T: JsonSchema> OperationInput for Json<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        let body = document::json_body::<T>(ctx, true);
        set_body(ctx, operation, body);
    }

    fn inferred_early_responses(ctx: &mut GenContext, operation: &mut Operation) -> Refusals {
        Whole::inferred_early_responses(ctx, operation)
    }
}

/// The same where a body may be left out.
pub(super) struct JsonOrNone<T>(pub(super) T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<Service>> for JsonOrNone<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &Arc<Service>) -> Result<Self, Problem> {
        let Whole(body) = Whole::from_request(request, state).await?;
        let empty = body.iter().all(u8::is_ascii_whitespace);
        if empty { Ok(Self(T::default())) } else { object(&body, "body").map(Self) }
    }
}

impl<T: JsonSchema> OperationInput for JsonOrNone<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        let body = document::json_body::<T>(ctx, false);
        set_body(ctx, operation, body);
    }

    fn inferred_early_responses(ctx: &mut GenContext, operation: &mut Operation) -> Refusals {
        Whole::inferred_early_responses(ctx, operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_is_not_utf8_is_refused() {
        for (query, good) in [
            ("path=a", true),
            ("path=%C3%A9", true),
            ("path=%zz%", true),
            ("path=%FF", false),
            ("path=%C3", false),
            ("path=%C3%41", false),
        ] {
            let uri = format!("/x?{query}").parse().unwrap();
            assert_eq!(is_utf8(&uri).is_ok(), good, "{query}");
        }
    }
}
