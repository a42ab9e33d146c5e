//! Methods of continual learning: what each adds to the steps of any learner, all through one trait.
//!
//! | method | adds to a step | remembers |
//! |---|---|---|
//! | `plain` | nothing | nothing |
//! | `replay` | old samples in the batch | which samples the buffer holds |
//! | `ewc` | a penalty on the change of the parameters | the diagonal Fisher information of the parameters |
//! | `agem` | nothing that goes against the mean gradient of old samples | which samples the buffer holds |
//! | `gem` | nothing that goes against the gradient of any older task's samples | which samples the buffer holds |
//!
//! A further method is a file with a [`Method`], a line in the list of [`MethodConfig`]'s variants, and a test. One of your own needs
//! the trait alone (`examples/own_method.rs`).

mod agem;
mod buffer;
mod ewc;
mod gem;
mod interface;
mod replay;

pub use agem::{Agem, AgemConfig};
pub use buffer::BufferPolicy;
pub use ewc::{Ewc, EwcConfig};
pub use gem::{Gem, GemConfig};
pub use interface::{EachGradient, GradientOf, Method, Plain, StepAt, StepView, TaskView};
pub use replay::{Replay, ReplayConfig};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares the methods of this crate: for each a variant of [`MethodConfig`] with the type of its options, and the type of the method.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident($config:ty) => $method:ty,)*) => {
        /// The methods of this crate, with their options.
        ///
        /// # Examples
        /// ```
        /// use fwd_continual::{MethodConfig, ReplayConfig};
        /// let config: MethodConfig = serde_json::from_str(r#"{"replay": {"size": 50}}"#)?;
        /// assert_eq!(config, MethodConfig::Replay(ReplayConfig { size: 50, ..ReplayConfig::default() }));
        /// assert_eq!(config.name(), "replay");
        /// # Ok::<(), serde_json::Error>(())
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum MethodConfig {
            /// Nothing beside what the learner does.
            #[default]
            Plain,
            $($(#[$doc])* $name($config),)*
        }

        impl MethodConfig {
            /// Every method with its default options, but for `plain`.
            pub fn all() -> Vec<Self> {
                vec![$(Self::$name(<$config>::default())),*]
            }

            /// The method itself, which has seen nothing yet.
            pub fn build(&self) -> Box<dyn Method> {
                match *self {
                    Self::Plain => Box::new(Plain),
                    $(Self::$name(config) => Box::new(<$method>::new(config)),)*
                }
            }

            /// Writes the options alone, without the name.
            ///
            /// # Errors
            /// Those of the serializer.
            pub fn serialize_options<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    Self::Plain => serializer.serialize_unit(),
                    $(Self::$name(config) => config.serialize(serializer),)*
                }
            }

            /// The same method with the options that [`Self::serialize_options`] writes; those that are left out have their defaults.
            ///
            /// # Errors
            /// An unknown key, or a value of another type.
            pub fn deserialize_options<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
                match self {
                    Self::Plain => Ok(Self::Plain),
                    $(Self::$name(_) => <$config>::deserialize(deserializer).map(Self::$name),)*
                }
            }
        }
    };
}

methods! {
    /// Samples of older tasks from a buffer among the new ones.
    Replay(ReplayConfig) => Replay,
    /// A penalty on changing what older tasks are sensitive to.
    Ewc(EwcConfig) => Ewc,
    /// Steps that never go against the mean gradient of a buffer of older samples.
    Agem(AgemConfig) => Agem,
    /// Steps that go against the gradient of no older task's samples in a buffer.
    Gem(GemConfig) => Gem,
}

impl MethodConfig {
    /// The method of a name, with its default options.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|method| method.name() == name)
    }

    /// The name on command lines and in files.
    pub fn name(&self) -> &'static str {
        self.build().name()
    }

    /// Whether this is [`Self::Plain`].
    pub fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_called_the_same_in_files_and_by_itself() {
        for method in MethodConfig::all() {
            let written = serde_json::to_value(method).unwrap();
            let (tag, options) = written.as_object().unwrap().iter().next().unwrap();
            assert_eq!(tag, method.name());
            assert_eq!(*options, method.build().options());
            assert_eq!(MethodConfig::named(tag), Some(method));
            assert!(!method.build().about().is_empty());
            assert_eq!(serde_json::from_value::<MethodConfig>(written).unwrap(), method);
        }
    }
}
