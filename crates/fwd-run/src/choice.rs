//! Settings with a fixed set of named values.

/// A setting with a fixed set of values, each with the name that configuration files, manifests and command lines use.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value with its name and one sentence about it, in the order in which lists show them.
    fn all() -> Vec<(Self, &'static str, String)>;

    /// The name of this value in files and on command lines.
    fn name(self) -> &'static str {
        Self::all().into_iter().find(|(value, ..)| *value == self).map_or("", |(_, name, _)| name)
    }

    /// The value of this name.
    fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|(_, known, _)| *known == name).map(|(value, ..)| value)
    }

    /// The place of this value in lists, from 0.
    fn place(self) -> usize {
        let all = Self::all();
        all.iter().position(|(value, ..)| *value == self).unwrap_or(all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Order;
    use crate::device::DeviceKind;
    use crate::method::Method;
    use crate::model::Template;
    use fwd_continual::MethodConfig;
    use fwd_models::WeightDtype;
    use fwd_ops::Compute;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    fn names_are_those_of_files<T: Choice + Serialize + DeserializeOwned>(n: usize) {
        assert_eq!(T::all().len(), n);
        for (place, (value, name, about)) in T::all().into_iter().enumerate() {
            let written = serde_json::to_value(value).unwrap();
            assert_eq!(written, name);
            assert!(serde_json::from_value::<T>(written).unwrap() == value);
            assert_eq!((value.name(), value.place()), (name, place));
            assert!(T::named(name) == Some(value) && !about.is_empty());
        }
        assert!(T::named("none of them").is_none());
    }

    #[test]
    fn a_value_is_called_the_same_on_the_command_line_and_in_files() {
        // Each method against forgetting has two: with prompts, and with adapters.
        names_are_those_of_files::<Method>(23 + 2 * MethodConfig::all().len());
        names_are_those_of_files::<Order>(3);
        names_are_those_of_files::<DeviceKind>(2);
        names_are_those_of_files::<WeightDtype>(5);
        names_are_those_of_files::<Compute>(3);
        names_are_those_of_files::<Template>(2);
    }
}
