//! Why `h2` itself ended an HTTP/2 connection. Names the abuse, so that what `h2` sees before our own budgets do is counted as well;
//! decides nothing.

use super::http2_frames::{Abuse, Frames};

/// What the sender did that made `h2` end its connection. `None` when it ended for another reason.
pub(super) fn abuse(error: &hyper::Error, frames: &Frames) -> Option<Abuse> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let by_us = error.is_go_away() && !error.is_remote();
            return error
                .reason()
                .filter(|reason| by_us && *reason != h2::Reason::NO_ERROR)
                .map(|reason| named(reason, frames));
        }
        source = error.source();
    }
    None
}

/// Which of its limits was reached, `h2` says in its GOAWAY alone, not in its errors. The length of what it says there tells these
/// apart; where it says nothing that is known, what was seen of the frames has to do.
fn named(reason: h2::Reason, frames: &Frames) -> Abuse {
    const NAMES: [(&str, Abuse); 5] = [
        ("too_many_data_frames", Abuse::EmptyData),
        ("too_many_continuations", Abuse::Continuations),
        ("header_list_way_too_large", Abuse::LargeHeads),
        ("too_many_resets", Abuse::Resets),
        ("too_many_internal_resets", Abuse::ProvokedResets),
    ];
    if reason != h2::Reason::ENHANCE_YOUR_CALM {
        return Abuse::ProtocolErrors;
    }
    let said = frames.said_bytes();
    match NAMES.iter().find(|(name, _)| name.len() == said) {
        Some((_, abuse)) => *abuse,
        None if frames.resets_any() => Abuse::Resets,
        None => Abuse::ProvokedResets,
    }
}
