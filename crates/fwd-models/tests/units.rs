//! Single functions against transformers: activations, norms, position buckets, cross entropy, shifted labels.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{DType, Device, Tensor, safetensors};
use common::{Report, Set, fixtures};
use fwd_models::relative::{Direction, bucket};
use fwd_ops::{Activation, Norm, cross_entropy};
use std::collections::HashMap;

fn units() -> HashMap<String, Tensor> {
    safetensors::load(fixtures().join("units/units.safetensors"), &Device::Cpu).unwrap()
}

#[test]
fn activations_and_norms_agree() {
    let (units, mut report) = (units(), Report::default());
    for (name, act) in [("act.gelu_erf", Activation::GeluErf), ("act.gelu_new", Activation::GeluTanh)] {
        report.close(name, &act.forward(&units["act.x"]).unwrap(), &units[name], 2e-6);
    }
    let (x, weight, bias) = (&units["norm.x"], &units["norm.weight"], &units["norm.bias"]);
    for (name, eps) in [("1e-05", 1e-5), ("1e-06", 1e-6), ("1e-12", 1e-12)] {
        let ours = Norm::layer(weight.clone(), bias.clone(), eps).unwrap().forward(x).unwrap();
        report.close(name, &ours, &units[&format!("norm.layernorm_{name}")], 1e-5);
    }
    let ours = Norm::rms(weight.clone(), 1e-6).unwrap().forward(x).unwrap();
    report.close("norm.t5_rms_1e-06", &ours, &units["norm.t5_rms_1e-06"], 1e-5);
    report.finish();
}

#[test]
fn position_buckets_agree() {
    let units = units();
    let positions: Vec<i64> = units["relpos.positions"].to_vec1().unwrap();
    for (n_buckets, max_distance) in [(32, 128), (12, 20), (8, 16)] {
        for (name, direction) in [("bidirectional", Direction::Both), ("causal", Direction::Back)] {
            let want: Vec<i64> =
                units[&format!("relpos.b{n_buckets}_d{max_distance}.{name}")].to_vec1().unwrap();
            let ours = positions.iter().map(|&p| i64::from(bucket(p, direction, n_buckets, max_distance)));
            assert_eq!(ours.collect::<Vec<_>>(), want, "{n_buckets} buckets to {max_distance}, {name}");
        }
    }
}

#[test]
fn cross_entropy_and_shifted_labels_agree() {
    let (units, mut report) = (units(), Report::default());
    let loss = cross_entropy(&units["ce.logits"], &units["ce.labels"]).unwrap();
    report.close("ce.loss", &loss.unsqueeze(0).unwrap(), &units["ce.loss"], 1e-6);
    let shifted = Set::open(&fixtures().join("sets/blip2-tiny"))
        .t5("config.json")
        .shift_right(&units["shift.labels"])
        .unwrap();
    assert_eq!(shifted.dtype(), DType::I64);
    report.close("shift", &shifted, &units["shift.decoder_input_ids"], 0.0);
    report.finish();
}
