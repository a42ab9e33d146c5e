//! Settings of the library as arguments.

use clap::Arg;
use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use fwd_run::Choice;
use std::ffi::OsStr;
use std::marker::PhantomData;

/// A setting of the library by its name; the help lists all names with what they mean.
pub(super) fn one_of<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    OneOf(PhantomData)
}

/// Reads the name of a `T`; of a misspelt one it says which is meant.
struct OneOf<T>(PhantomData<T>);

impl<T> Clone for OneOf<T> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<T: Choice + Send + Sync + 'static> TypedValueParser for OneOf<T> {
    type Value = T;

    fn parse_ref(&self, cmd: &clap::Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let name = value.to_string_lossy();
        T::named(&name).ok_or_else(|| {
            let names: Vec<String> = T::all().into_iter().map(|(_, name, _)| name.to_owned()).collect();
            let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(cmd);
            if let Some(arg) = arg {
                error.insert(ContextKind::InvalidArg, ContextValue::String(arg.to_string()));
            }
            if let Some(meant) = nearest(&names, &name) {
                error.insert(ContextKind::SuggestedValue, ContextValue::String(meant));
            }
            error.insert(ContextKind::InvalidValue, ContextValue::String(name.into_owned()));
            error.insert(ContextKind::ValidValue, ContextValue::Strings(names));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = T::all().into_iter().map(|(_, name, about)| PossibleValue::new(name).help(about));
        Some(Box::new(names))
    }
}

/// The name that a misspelt one is most similar to, if one is similar.
fn nearest(names: &[String], misspelt: &str) -> Option<String> {
    // The one measure knows common beginnings, the other exchanged letters.
    let similarity = |name: &String| {
        strsim::jaro_winkler(name, misspelt).max(strsim::normalized_damerau_levenshtein(name, misspelt))
    };
    let scored = names.iter().map(|name| (similarity(name), name)).filter(|(score, _)| *score > 0.65);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.clone())
}
