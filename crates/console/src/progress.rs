//! A campaign's progress as a fragment, and the streams that keep it fresh.
//!
//! A stream renders again every so often and sends only what differs from what it sent last, so an idle campaign costs
//! one small query and no traffic. It ends when the server stops; the browser connects again by itself.

use std::{convert::Infallible, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use maud::{Markup, html};
use store::{Campaign, messages::Counts};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::words::Language;

/// `done` of `planned` in hundredths, for the bar.
fn percent(part: i64, planned: i64) -> i64 {
    if planned <= 0 {
        0
    } else {
        (part * 100).div_euclid(planned).clamp(0, 100)
    }
}

/// The bar: sent, failed, and what will not be sent.
pub(crate) fn bar(counts: &Counts) -> Markup {
    let sent = percent(counts.accepted + counts.delivered, counts.planned);
    let failed = percent(counts.failed + counts.unknown, counts.planned);
    let other = percent(counts.suppressed + counts.expired + counts.cancelled, counts.planned);
    // Widths as SVG attributes: the pages' policy allows no inline styles.
    html! {
        svg.progress viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label={ (sent) " %" } {
            rect class="track" width="100" height="4" rx="2" {}
            rect class="sent" width=(sent) height="4" {}
            rect class="failed" x=(sent) width=(failed) height="4" {}
            rect class="other" x=(sent + failed) width=(other) height="4" {}
        }
    }
}

/// State, bar and counts of one campaign.
pub(crate) fn tiles(language: Language, campaign: &Campaign, counts: &Counts) -> Markup {
    let words = language.words();
    html! {
        p {
            span class={ "state " (campaign.state) } data-state=(campaign.state) { (words.campaign_state(campaign.state.as_str())) }
            " " span.soft { (language.number(counts.planned - counts.pending)) " / " (language.number(counts.planned)) }
        }
        (bar(counts))
        div.tiles {
            @for (word, count) in [
                (words.planned, counts.planned),
                (words.pending, counts.pending),
                (words.accepted, counts.accepted),
                (words.delivered, counts.delivered),
                (words.failed, counts.failed),
                (words.unknown, counts.unknown),
                (words.suppressed, counts.suppressed),
                (words.expired, counts.expired),
                (words.cancelled, counts.cancelled),
            ] {
                @if count > 0 || word == words.planned || word == words.delivered {
                    div { b { (language.number(count)) } span { (word) } }
                }
            }
        }
    }
}

/// A stream of the event `progress`: what `render` gives, whenever it differs. `render` answers `None` at the end.
pub(crate) fn stream<F, R>(
    stopping: CancellationToken,
    every: Duration,
    render: F,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>>
where
    F: Fn() -> R + Send + 'static,
    R: Future<Output = Option<Markup>> + Send,
{
    let (sender, events) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut last = String::new();
        loop {
            let Some(markup) = render().await else { return };
            let text = markup.into_string();
            if text != last {
                // The page has gone when nobody receives.
                if sender
                    .send(Ok(Event::default().event("progress").data(&text)))
                    .await
                    .is_err()
                {
                    return;
                }
                last = text;
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sender.closed() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    });
    Sse::new(ReceiverStream::new(events)).keep_alive(KeepAlive::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_never_overflows() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(1, 3), 33);
        assert_eq!(percent(5, 3), 100);
    }
}
