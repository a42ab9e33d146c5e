//! The options of the methods of [`fwd_continual`]: a section of the configuration for each, under the method's own name.

use fwd_continual::MethodConfig;
use serde::de::{DeserializeSeed, Deserializer};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The options of every method.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodOptions(Vec<MethodConfig>);

impl Default for MethodOptions {
    fn default() -> Self {
        Self(MethodConfig::all())
    }
}

impl MethodOptions {
    /// Every method with its options.
    pub fn all(&self) -> &[MethodConfig] {
        &self.0
    }

    /// The method of this name with its options.
    pub fn of(&self, name: &str) -> Option<MethodConfig> {
        self.0.iter().find(|method| method.name() == name).copied()
    }

    /// Replaces the options of a method.
    pub fn set(&mut self, options: MethodConfig) {
        for method in self.0.iter_mut().filter(|method| method.name() == options.name()) {
            *method = options;
        }
    }
}

/// A map from names to options.
impl Serialize for MethodOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for method in &self.0 {
            map.serialize_entry(method.name(), &OptionsOf(method))?;
        }
        map.end()
    }
}

/// The options of one method, without its name.
struct OptionsOf<'a>(&'a MethodConfig);

impl Serialize for OptionsOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_options(serializer)
    }
}

/// Reads the options of this method.
pub(super) struct Section(pub(super) MethodConfig);

impl<'de> DeserializeSeed<'de> for Section {
    type Value = MethodConfig;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<MethodConfig, D::Error> {
        self.0.deserialize_options(deserializer)
    }
}
