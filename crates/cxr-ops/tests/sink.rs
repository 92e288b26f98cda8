//! Gradients that go past autograd are those that go through it.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use cxr_ops::{Fused, GradientSink, apply_fused};

/// The elementwise product of all inputs.
struct Product;

impl Fused for Product {
    type Tape = ();

    fn name(&self) -> &'static str {
        "product"
    }

    fn forward(&self, inputs: &[&[f32]]) -> Result<(Vec<f32>, Shape, ())> {
        let n = inputs[0].len();
        let at = |at: usize| inputs.iter().map(|input| input[at]).product();
        Ok(((0..n).map(at).collect(), n.into(), ()))
    }

    fn backward(
        &self,
        inputs: &[&[f32]],
        (): &(),
        gradient: &[f32],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let of = |which: usize| {
            let at = |(at, upstream): (usize, &f32)| {
                let others = inputs.iter().enumerate();
                let others = others.filter(|&(other, _)| other != which);
                upstream * others.map(|(_, input)| input[at]).product::<f32>()
            };
            Some(gradient.iter().enumerate().map(at).collect())
        };
        Ok((0..inputs.len()).map(of).collect())
    }
}

fn var(values: [f32; 2]) -> Result<Var> {
    Var::new(&values, &Device::Cpu)
}

/// Two operations one after the other, one variable in both, and a tensor in between that is no variable.
fn network(vars: &[Var; 3]) -> Result<Tensor> {
    let [a, b, c] = vars.each_ref().map(Var::as_tensor);
    let first = apply_fused(Product, &[a.clone(), b.clone()])?;
    let between = (first.sqr()? + a)?;
    apply_fused(Product, &[between, b.clone(), c.clone()])?.sum_all()
}

#[test]
fn a_sink_has_the_gradients_of_autograd() -> Result<()> {
    let vars = [var([1.5, -2.])?, var([0.5, 3.])?, var([4., -1.])?];
    let expected = network(&vars)?.backward()?;

    let sink = GradientSink::new();
    let output = sink.scope(|| network(&vars))?;
    let mut found = output.backward()?;
    // `a` is also an input of a plain operation, whose share autograd has; the others have no gradient yet.
    let has = |var: &Var, found: &candle_core::backprop::GradStore| found.get(var).is_some();
    assert_eq!(
        vars.each_ref().map(|var| has(var, &found)),
        [true, false, false]
    );
    sink.add_to(&mut found)?;
    for var in &vars {
        let gradient = |store: &candle_core::backprop::GradStore| -> Result<Vec<f32>> {
            store.get(var).map_or(Ok(Vec::new()), Tensor::to_vec1)
        };
        assert_eq!(gradient(&found)?, gradient(&expected)?);
    }

    // It is empty again, and outside its scope nothing comes to it.
    let mut again = network(&vars)?.backward()?;
    let before: Vec<Option<Vec<f32>>> = (vars.iter())
        .map(|var| again.get(var).map(Tensor::to_vec1).transpose())
        .collect::<Result<_>>()?;
    sink.add_to(&mut again)?;
    for (var, before) in vars.iter().zip(before) {
        assert_eq!(again.get(var).map(Tensor::to_vec1).transpose()?, before);
    }
    Ok(())
}

#[test]
fn what_takes_no_part_in_autograd_has_no_gradient() -> Result<()> {
    let constant = Tensor::ones(2, DType::F32, &Device::Cpu)?;
    let sink = GradientSink::new();
    let output = sink.scope(|| apply_fused(Product, &[constant.clone(), constant.clone()]))?;
    let mut found = output.sum_all()?.backward()?;
    sink.add_to(&mut found)?;
    assert!(found.get(&constant).is_none());
    Ok(())
}
