//! The initialisers of an ONNX file and the nodes that read them: what is needed of the protocol buffers of
//! <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

/// A tensor of the graph in f32.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// What of a graph tells which parameter a tensor is.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// The tensors by their names.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Name, operator and inputs of every node.
    pub(crate) nodes: Vec<(String, String, Vec<String>)>,
}

/// A field of a message: its number, and a number or bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after another.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().context("a number is cut short")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number is too long")
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).context("a field is cut short")?;
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let n = self.varint()?;
                Field::Bytes(self.take(usize::try_from(n)?)?)
            }
            5 => Field::Bytes(self.take(4)?),
            other => bail!("a field of the unknown wire type {other}"),
        };
        Ok(Some((key >> 3, field)))
    }
}

/// Reads the graph of a model.
pub(crate) fn read(bytes: &[u8]) -> Result<Graph> {
    const GRAPH: u64 = 7;
    let mut model = Message(bytes);
    while let Some((number, field)) = model.next()? {
        if let (GRAPH, Field::Bytes(graph)) = (number, field) {
            return of_graph(graph);
        }
    }
    bail!("there is no graph; is it an ONNX file?")
}

fn of_graph(bytes: &[u8]) -> Result<Graph> {
    const NODE: u64 = 1;
    const INITIALISER: u64 = 5;
    let (mut message, mut graph) = (Message(bytes), Graph::default());
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (NODE, Field::Bytes(node)) => graph.nodes.push(of_node(node)?),
            (INITIALISER, Field::Bytes(tensor)) => {
                if let Some((name, tensor)) = of_tensor(tensor)? {
                    graph.tensors.insert(name, tensor);
                }
            }
            _ => {}
        }
    }
    Ok(graph)
}

fn of_node(bytes: &[u8]) -> Result<(String, String, Vec<String>)> {
    let (mut message, mut name, mut operator, mut inputs) =
        (Message(bytes), String::new(), String::new(), vec![]);
    while let Some((number, field)) = message.next()? {
        let Field::Bytes(text) = field else { continue };
        match number {
            1 => inputs.push(String::from_utf8(text.to_vec())?),
            3 => name = String::from_utf8(text.to_vec())?,
            4 => operator = String::from_utf8(text.to_vec())?,
            _ => {}
        }
    }
    Ok((name, operator, inputs))
}

/// A tensor of 32-bit floats whose elements are raw bytes, as exporters write them; none for another type, and for elements that lie
/// elsewhere.
fn of_tensor(bytes: &[u8]) -> Result<Option<(String, Tensor)>> {
    const FLOAT: u64 = 1;
    let (mut message, mut name, mut kind) = (Message(bytes), String::new(), 0);
    let (mut shape, mut raw) = (Vec::new(), &[][..]);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Number(side)) => shape.push(usize::try_from(side)?),
            (1, Field::Bytes(packed)) => {
                let mut sides = Message(packed);
                while !sides.0.is_empty() {
                    shape.push(usize::try_from(sides.varint()?)?);
                }
            }
            (2, Field::Number(value)) => kind = value,
            (8, Field::Bytes(text)) => name = String::from_utf8(text.to_vec())?,
            (9, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    if kind != FLOAT || (raw.is_empty() && !shape.contains(&0)) {
        return Ok(None);
    }
    let values: Vec<f32> = raw.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let n_values = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    ensure!(n_values == Some(values.len()), "`{name}` has {} values for the shape {shape:?}", values.len());
    Ok(Some((name, Tensor { shape, values })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_anywhere_is_refused_or_lacks_its_tensor() {
        // A model with a graph (field 7), in it a tensor (5): sides 2 and 1, type 1, name "w", eight raw bytes.
        let tensor = [8, 2, 8, 1, 16, 1, 66, 1, b'w', 74, 8, 0, 0, 128, 63, 0, 0, 0, 64];
        let graph = [&[42, tensor.len() as u8][..], &tensor].concat();
        let model = [&[8, 8, 58, graph.len() as u8][..], &graph].concat();
        let read_w = |bytes: &[u8]| read(bytes).ok().and_then(|graph| graph.tensors.get("w").cloned());
        let w = read_w(&model).unwrap();
        assert_eq!((w.shape, w.values), (vec![2, 1], vec![1.0, 2.0]));
        assert!((0..model.len()).all(|n| read_w(&model[..n]).is_none()));
        assert!(read(&[]).unwrap_err().to_string().contains("no graph"));
        assert!(read(&[0x80; 12]).unwrap_err().to_string().contains("too long"));
        // Sides whose product no machine can hold.
        let huge = [&[8][..], &[0xff; 8], &[1]].concat();
        let tensor = [&huge[..], &huge, &[16, 1]].concat();
        assert!(of_tensor(&tensor).unwrap().is_none());
        let with_bytes = [&tensor[..], &[74, 4, 0, 0, 0, 0]].concat();
        assert!(of_tensor(&with_bytes).unwrap_err().to_string().contains("1 values"));
    }
}
