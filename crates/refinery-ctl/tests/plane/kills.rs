//! The process ends at each of its writes to the API server and to git, once before the server has
//! the write and once before the answer is back, and another one begins with the same folder and no
//! memory: the life of its requests comes to the same. So it does when the connection has faults.

use std::sync::Arc;

use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::ControlPlane;
use gastown_cluster::install;
use gastown_fakes::connection::Connection;
use gastown_fakes::kills::{self, Lives, Process};
use gastown_runtime::{Runtime, RuntimeArgs, grpc};
use tokio::sync::OnceCell;

use crate::fixture::{ACCOUNT, NAMESPACE, own_args};
use crate::life::{End, Life};

const LIVES: Lives = Lives { parallel: 18, step: 1 };

/// The controller of the other tests does not see this one.
static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

async fn plane() -> &'static ControlPlane {
    install::apart(&PLANE, Controller::Refinery, &[]).await.unwrap()
}

/// One life, whose first process has this connection.
async fn live(connection: Arc<Connection>) -> End {
    let plane = plane().await;
    let life = Life::new(plane).await.unwrap();
    let (data, tls) = (life.fixture.dir.path().join("data"), life.fixture.dir.path().join("tls"));
    std::fs::create_dir(&tls).unwrap();
    install::certificates(&tls).unwrap();
    let start = async |connection: Arc<Connection>| {
        connection.only(&life.fixture.namespace, &life.fixture.rig);
        life.git.connect("remote", connection.clone());
        let config = install::config(plane, Controller::Refinery);
        let (data, tls) = (data.clone(), tls.clone());
        let work = |config| async move {
            let args = RuntimeArgs {
                namespace: NAMESPACE.into(),
                tls_dir: tls,
                ..RuntimeArgs::from_env()?
            };
            let runtime = Runtime::leading(ACCOUNT, config, args)?;
            let grpc = grpc::listen("127.0.0.1:0".parse()?).await?;
            let git = grpc::listen("127.0.0.1:0".parse()?).await?;
            let own = own_args(&data, git.local_addr()?.port());
            Box::pin(refinery_ctl::serve(runtime, own, grpc, git)).await
        };
        Process::start(&connection, life.fixture.client.clone(), config, work).await
    };
    Box::pin(kills::live(connection, start, life.live())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_end_the_same_at_whichever_write_the_process_ends() {
    let end = kills::at_every_write(LIVES, live).await;
    assert_eq!(end.landed(), ["root", "meanwhile", "work on feature/a (mr-a)"], "{end:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_end_the_same_whatever_the_connection_does() {
    kills::under_each_fault(live).await;
}
