//! The process ends at each of its writes, once before the API server has the write and once before
//! the answer is back, and another one begins without memory: the life of its Polecats comes to the
//! same. So it does when the connection has faults.

use std::sync::Arc;

use gastown_fakes::connection::Connection;
use gastown_fakes::kills::{self, Lives, Process};

use crate::fixture::Fixture;
use crate::life::{End, Life};
use crate::replica::Replica;

const LIVES: Lives = Lives { parallel: 16, step: 1 };

/// One life, whose process has this connection.
async fn live(fixture: &Fixture, connection: Arc<Connection>) -> End {
    let life = Life::new(fixture).await;
    let start = async |connection: Arc<Connection>| {
        connection.only(&life.namespace, &life.rig);
        let settings = life.settings();
        let (admin, config) = (fixture.admin.clone(), settings.config());
        let work = |config| async move {
            drop(Replica::start_with(&settings, config, Arc::default(), None));
            Ok(())
        };
        Process::start(&connection, admin, config, work).await
    };
    let end = Box::pin(kills::live(connection, start, life.live())).await.unwrap();
    life.close().await;
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_comes_to_the_same_at_whichever_write_its_process_ends() {
    let mut fixture = Fixture::new().await;
    fixture.start_server().await;
    let end = kills::at_every_write(LIVES, |connection| live(&fixture, connection)).await;
    assert_eq!(end.most_live, 1, "the rig has one slot: {end:#?}");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_comes_to_the_same_whatever_the_connection_does() {
    let mut fixture = Fixture::new().await;
    fixture.start_server().await;
    kills::under_each_fault(|connection| live(&fixture, connection)).await;
    fixture.close().await;
}
