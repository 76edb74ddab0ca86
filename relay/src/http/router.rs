//! Every route, on one screen (`relay-protocol` 2.1).

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderValue, Method, StatusCode, header};

use super::{App, blobs, files, jobs, logs, mcp, queues, site, stream};
use crate::error::ApiError;
use crate::limits::MAX_BODY_BYTES;
use crate::ws;

pub(crate) fn router(app: Arc<App>) -> Router {
    let local = match app.local_queue {
        Some(_) => Router::new().route("/metrics", get(queues::local_metrics)),
        None => Router::new(),
    };
    let routes = Router::new()
        .route("/healthz", get(site::health))
        // The name that local mode of existing workers has for it.
        .route("/health", get(site::health))
        // Blobs.
        // A file may be as long as the store of files allows, which refuses by itself.
        .route("/f/{key}", get(blobs::download).put(blobs::upload).layer(DefaultBodyLimit::disable()))
        .route("/f/{key}/exists", get(blobs::exists))
        // Jobs by id alone.
        .route("/j/{job}", get(jobs::job_or_page))
        .route("/j/{job}/definition.json", get(jobs::definition))
        .route("/j/{job}/result.json", get(jobs::result))
        .route("/j/{job}/results.json", get(jobs::result))
        .route("/j/{job}/build-logs.json", get(logs::build))
        .route("/j/{job}/run-logs.json", get(logs::run))
        .route("/j/{job}/inputs", get(files::missing))
        .route("/j/{job}/inputs/", get(files::missing))
        .route("/j/{job}/inputs/{*path}", get(files::input))
        .route("/j/{job}/outputs", get(files::missing))
        .route("/j/{job}/outputs/", get(files::missing))
        .route("/j/{job}/outputs/{*path}", get(files::output))
        .route("/j/{job}/copy", post(jobs::copy))
        // Jobs in a queue.
        .route("/q/{queue}", get(jobs::list).post(jobs::submit))
        .route("/q/{queue}/j", get(jobs::list).post(jobs::submit))
        .route("/q/{queue}/j/{job}", get(jobs::job_in_queue))
        .route("/q/{queue}/j/{job}/definition.json", get(jobs::definition_in_queue))
        .route("/q/{queue}/j/{job}/result.json", get(jobs::result_in_queue))
        .route("/q/{queue}/j/{job}/results.json", get(jobs::result_in_queue))
        .route("/q/{queue}/j/{job}/namespaces.json", get(jobs::namespaces))
        .route("/q/{queue}/j/{job}/history.json", get(jobs::history))
        .route("/q/{queue}/j/{job}/build-logs.json", get(logs::build_in_queue))
        .route("/q/{queue}/j/{job}/run-logs.json", get(logs::run_in_queue))
        .route("/q/{queue}/j/{job}/inputs", get(files::missing))
        .route("/q/{queue}/j/{job}/inputs/", get(files::missing))
        .route("/q/{queue}/j/{job}/inputs/{*path}", get(files::input_in_queue))
        .route("/q/{queue}/j/{job}/outputs", get(files::missing))
        .route("/q/{queue}/j/{job}/outputs/", get(files::missing))
        .route("/q/{queue}/j/{job}/outputs/{*path}", get(files::output_in_queue))
        .route("/q/{queue}/j/{job}/stream", get(stream::stream))
        .route("/q/{queue}/j/{job}/cancel", post(jobs::cancel))
        .route("/q/{queue}/j/{job}/{namespace}/cancel", post(jobs::cancel_in_namespace))
        // Queues.
        .route("/q/{queue}/status", get(queues::status))
        .route("/q/{queue}/metrics", get(queues::metrics))
        // Old forms and names (`relay-protocol` 2.14, 2.16, R-21).
        .route("/upload/{key}", get(blobs::old_upload))
        .route("/download/{key}", get(blobs::old_download))
        .route("/api/v1/download/{key}", get(blobs::download))
        .route("/api/v1/exists/{key}", get(blobs::exists))
        .route("/api/v1/upload/{key}", get(blobs::old_upload))
        .route("/{queue}/status", get(queues::status))
        .route("/{queue}/metrics", get(queues::metrics))
        .route("/{queue}/j/{job}/result.json", get(jobs::result_in_queue))
        // Tools of language models.
        .merge(mcp::routes())
        .merge(local)
        // The site.
        .route("/docs", get(site::docs))
        .route("/llms.txt", get(site::llms))
        .fallback(site::page)
        // A known path with another method is no route either.
        .method_not_allowed_fallback(site::page)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::clone(&app));
    routes
        .layer(middleware::from_fn_with_state(Arc::clone(&app), sockets_first))
        .layer(middleware::from_fn(cross_origin))
        .layer(middleware::from_fn_with_state(app, known_pages))
}

/// An upgrade never reaches the routes, whatever its path (`relay-protocol` 1.3).
async fn sockets_first(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // The name of an input or output is taken as it came; all else is decoded, and two addresses would name one thing.
    let path = request.uri().path();
    let file = ["/inputs/", "/outputs/"].iter().find_map(|marker| files::name_of_file(path, marker));
    if !is_well_escaped(file.map_or(path, |(before, _)| before)) {
        let why = "the address cannot be read: a % in it is not followed by two hexadecimal digits";
        return ApiError::bad(why).into_response();
    }
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return ws::upgrade(app, request).await;
    }
    let response = next.run(request).await;
    app.service.metrics.answered(response.status());
    response
}

fn is_well_escaped(path: &str) -> bool {
    path.split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// Turns away the pages of foreign sites where that is asked for, before anything else hears of them.
async fn known_pages(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    name_host(&mut request);
    let headers = request.headers();
    if app.origins.allow(headers.get(header::ORIGIN), headers.get(header::HOST)) {
        return next.run(request).await;
    }
    let why =
        "this page may not run containers here: start dockframe with --allow-origin and the page's address";
    ApiError::Json(StatusCode::FORBIDDEN, why.to_owned()).into_response()
}

/// HTTP/2 says in its address what HTTP/1 says in a header: by which name the relay was asked.
fn name_host<B>(request: &mut http::Request<B>) {
    let authority = request.uri().authority().filter(|_| !request.headers().contains_key(header::HOST));
    let host = authority.and_then(|authority| {
        // Without the names and secrets that an address may hold.
        let name = authority.as_str().rsplit('@').next().unwrap_or_default();
        HeaderValue::from_str(name).ok()
    });
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Every answer may be read by every site; preflights are answered at once (`relay-protocol` 1.4).
async fn cross_origin(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let wanted = wanted.and_then(|value| value.to_str().ok()).map(|value| value.replace(' ', ""));
        let wanted = wanted.filter(|wanted| !wanted.is_empty());
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET,HEAD,PUT,POST,DELETE,PATCH"),
        );
        if let Some(wanted) = wanted.and_then(|wanted| HeaderValue::from_str(&wanted).ok()) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
            headers.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        }
        response
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_relay_is_known_over_both_versions_of_http() {
        let host = |uri: &str, header: Option<&str>| {
            let mut request = http::Request::builder().uri(uri);
            if let Some(header) = header {
                request = request.header(header::HOST, header);
            }
            let mut request = request.body(()).unwrap();
            name_host(&mut request);
            request.headers().get(header::HOST).map(|host| host.to_str().unwrap().to_owned())
        };
        assert_eq!(host("/upload/x", Some("relay.example:8000")).as_deref(), Some("relay.example:8000"));
        let over_2 = host("http://me:secret@relay.example:8000/upload/x", None);
        assert_eq!(over_2.as_deref(), Some("relay.example:8000"));
        assert_eq!(host("/upload/x", None), None);
    }
}
