//! Sending a request again.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use tonic::{Code, Status};

/// The wait before the second attempt, without jitter.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Sends a request up to `attempts` times while its error is retryable, waiting 100 ms, 200 ms, …
/// and up to twice that by jitter in between. For requests that change nothing when they arrive
/// twice.
pub async fn retry<T, F, Fut>(attempts: u32, request: F) -> Result<T, Status>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let delays = ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_times(attempts.saturating_sub(1) as usize)
        .with_jitter();
    request
        .retry(delays)
        .when(is_retryable)
        .notify(|status, delay| {
            tracing::debug!(code = ?status.code(), ?delay, "a request failed and is sent again");
        })
        .await
}

fn is_retryable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(attempts: u32, answers: &[Result<(), Code>]) -> (usize, Result<(), Code>) {
        let mut sent = 0;
        let ended = retry(attempts, || {
            let answer = answers[sent].map_err(|code| Status::new(code, ""));
            sent += 1;
            std::future::ready(answer)
        })
        .await;
        (sent, ended.map_err(|status| status.code()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_retryable_error_is_tried_again_within_the_limit() {
        let unavailable = Err(Code::Unavailable);
        assert_eq!(sent(3, &[unavailable, Ok(())]).await, (2, Ok(())));
        assert_eq!(sent(3, &[unavailable; 3]).await, (3, unavailable));
        assert_eq!(sent(1, &[unavailable]).await, (1, unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn another_error_is_final() {
        let denied = Err(Code::PermissionDenied);
        assert_eq!(sent(3, &[denied, Ok(())]).await, (1, denied));
    }
}
