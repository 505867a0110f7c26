//! gRPC's health service, for Kubernetes and load balancers.
//!
//! There is one service name, the empty one, which stands for the member. It is serving while it knows a leader and
//! no alarm says that the members' states differ.

use std::collections::HashMap;

use bowline_api::healthpb as pb;
use pb::health_check_response::ServingStatus;
use pb::health_server::Health;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Context;
use crate::replica;

#[derive(Clone, Debug)]
pub(crate) struct HealthService {
    pub(crate) context: Context,
}

/// Whether a member in this state is serving. Without space it still serves reads and deletions.
fn serving(status: &replica::Status) -> ServingStatus {
    let serves = status.leader.is_some() && !status.facts.alarms.corrupt;
    if serves { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse { status: status.into() }
}

impl HealthService {
    fn now(&self) -> ServingStatus {
        serving(&self.context.replica.status())
    }

    /// Sends the state and each change of it, until the receiver is gone.
    async fn tell(&self, changes: &mpsc::Sender<Result<pb::HealthCheckResponse, Status>>) {
        let mut status = self.context.replica.watch_status();
        let mut told = None;
        loop {
            let Ok(now) = status.wait_for(|status| Some(serving(status)) != told).await.map(|status| serving(&status))
            else {
                // The replica has ended. The server is about to end, and that ends the stream.
                return std::future::pending().await;
            };
            if changes.send(Ok(response(now))).await.is_err() {
                return;
            }
            told = Some(now);
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(self.now())))
    }

    async fn list(&self, _request: Request<pb::HealthListRequest>) -> Result<Response<pb::HealthListResponse>, Status> {
        let statuses = HashMap::from([(String::new(), response(self.now()))]);
        Ok(Response::new(pb::HealthListResponse { statuses }))
    }

    type WatchStream = ReceiverStream<Result<pb::HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let (changes, stream) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let told = async {
                if known {
                    return service.tell(&changes).await;
                }
                // No other name will ever exist, but the protocol requires that the stream stays open.
                let _ = changes.send(Ok(response(ServingStatus::ServiceUnknown))).await;
                std::future::pending().await
            };
            let ended = tokio::select! {
                () = told => return,
                () = changes.closed() => return,
                ended = service.context.stopped() => ended,
            };
            // The client may be gone.
            let _ = changes.send(Err(ended)).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
