//! The embedded benchmark and model, which an installed program carries within itself.

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Lets the library find them.
pub(crate) fn embed() {
    if !ASSETS.files.is_empty() {
        fwd_run::assets::embed(ASSETS);
    }
}
