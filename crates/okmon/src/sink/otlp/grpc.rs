//! OTLP over gRPC, on tonic's services. Answers as the Collector and Tempo do, but that a missing tenant is
//! UNAUTHENTICATED, where Tempo's UNAVAILABLE would let a misconfigured sender retry for ever.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::{Code, Status};

use collector::logs::v1 as logs;
use collector::metrics::v1 as metrics;
use collector::profiles::v1development as profiles;
use collector::trace::v1 as traces;
use logs::logs_service_server as logs_server;
use metrics::metrics_service_server as metrics_server;
use profiles::profiles_service_server as profiles_server;
use traces::trace_service_server as traces_server;

use super::Export;
use crate::sink::BODY_BYTES_MAX;
use crate::sink::head::{Head, NoTenant};
use crate::sink::store::{Protocol, Sink};

/// Declares one service: its route, and `Export` for [`Sink`].
macro_rules! service {
    ($package:ident, $server:ident, $Trait:ident, $Server:ident, $Request:ident, $Response:ident) => {
        #[tonic::async_trait]
        impl $server::$Trait for Sink {
            async fn export(
                &self,
                request: tonic::Request<$package::$Request>,
            ) -> Result<tonic::Response<$package::$Response>, Status> {
                keep(self, $server::SERVICE_NAME, request)?;
                Ok(tonic::Response::new($package::$Response::default()))
            }
        }

        fn $package(sink: &Sink) -> (String, $server::$Server<Sink>) {
            let service = $server::$Server::new(sink.clone())
                .max_decoding_message_size(BODY_BYTES_MAX)
                .accept_compressed(Gzip)
                .accept_compressed(Zstd);
            (path($server::SERVICE_NAME), service)
        }
    };
}

service!(
    traces,
    traces_server,
    TraceService,
    TraceServiceServer,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse
);
service!(
    metrics,
    metrics_server,
    MetricsService,
    MetricsServiceServer,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse
);
service!(
    logs,
    logs_server,
    LogsService,
    LogsServiceServer,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse
);
service!(
    profiles,
    profiles_server,
    ProfilesService,
    ProfilesServiceServer,
    ExportProfilesServiceRequest,
    ExportProfilesServiceResponse
);

/// The four services.
pub(in crate::sink) fn routes(sink: &Sink) -> Router<Sink> {
    let (traces, metrics, logs, profiles) =
        (traces(sink), metrics(sink), logs(sink), profiles(sink));
    Router::new()
        .route_service(&traces.0, traces.1)
        .route_service(&metrics.0, metrics.1)
        .route_service(&logs.0, logs.1)
        .route_service(&profiles.0, profiles.1)
        .layer(map_response(too_large_is_exhausted))
}

fn path(service_name: &str) -> String {
    format!("/{service_name}/Export")
}

fn keep<T: Export>(
    sink: &Sink,
    service_name: &str,
    request: tonic::Request<T>,
) -> Result<(), Status> {
    let (metadata, _, message) = request.into_parts();
    let head = Head::read(
        Protocol::OtlpGrpc,
        &path(service_name),
        &metadata.into_headers(),
    )
    .map_err(|error| match error {
        NoTenant::Missing => Status::unauthenticated(error.to_string()),
        NoTenant::Invalid(_) => Status::invalid_argument(error.to_string()),
    })?;
    head.keep(sink, T::SIGNAL, message.item_count(), &message)
        .map_err(|error| Status::internal(error.to_string()))
}

/// tonic answers a message over the limit with `OUT_OF_RANGE`, which OTLP senders retry; grpc-go, so the Collector and Tempo,
/// with `RESOURCE_EXHAUSTED`, which they do not.
async fn too_large_is_exhausted(mut response: Response) -> Response {
    let status = response.headers_mut().get_mut(Status::GRPC_STATUS);
    if let Some(status) =
        status.filter(|status| *status == (Code::OutOfRange as i32).to_string().as_str())
    {
        *status = HeaderValue::from(Code::ResourceExhausted as i32);
    }
    response
}

/// What is nobody's path, in the language of the request.
pub(in crate::sink) async fn unknown_method(request: Request) -> Response {
    let path = request.uri().path();
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented(format!("unknown method {path}"))
            .into_http::<axum::body::Body>();
    }
    (StatusCode::NOT_FOUND, format!("{path} not found\n")).into_response()
}
