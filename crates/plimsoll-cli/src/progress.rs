//! Progress on stderr: a bar with the time left, on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A spinner with a message, for work whose length is not known.
pub(crate) fn spinner(message: impl Into<std::borrow::Cow<'static, str>>, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    bar.set_style(style("{spinner} {msg}"));
    bar.set_message(message);
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

/// A bar for work whose length is known.
pub(crate) fn bar(quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), target(quiet));
    bar.set_style(style("{msg} {wide_bar:.cyan/dim} {percent:>3} %  {elapsed} elapsed, {eta} left"));
    bar.enable_steady_tick(std::time::Duration::from_millis(250));
    bar
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a mistake in one costs its looks, not the work.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
