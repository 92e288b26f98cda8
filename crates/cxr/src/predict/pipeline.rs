//! Decoding beside computing: images come in their order, and no more of them than a few batches are held.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

use cxr_dataset::{
    DatasetError, ImageAttributes, Radiograph, Tone, decode_radiograph_in, read_image_file,
};

use super::inputs::{Inputs, Raw};
use super::network::{Network, Sized};

/// An image ready for the network, or the reason why there is none.
pub(super) struct Ready {
    /// Its place among the inputs.
    pub(super) at: usize,
    pub(super) outcome: Result<Decoded, String>,
}

/// A decoded image and what its file says.
pub(super) struct Decoded {
    pub(super) sized: Sized,
    pub(super) patient: Option<String>,
    pub(super) study: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// How images are decoded.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a> {
    /// The models that want them.
    pub(super) network: &'a Network,
    pub(super) tone: Tone,
    /// What a table says of age, sex and view, by the places of the images; empty without a table.
    pub(super) attributes: &'a [ImageAttributes],
    pub(super) n_threads: usize,
    /// Images that are held at most.
    pub(super) depth: usize,
}

struct Job {
    at: usize,
    raw: Raw,
    answer: SyncSender<Ready>,
}

/// Starts to read and decode the images for which `is_wanted`; they come in their order. Dropping the receiver ends it.
///
/// # Errors
/// Threads that cannot be started.
pub(super) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    inputs: &'scope Inputs,
    is_wanted: impl Fn(usize) -> bool + Send + 'scope,
    settings: Settings<'scope>,
) -> std::io::Result<Images> {
    // The queue of answers is in the images' order and bounds what is in flight; each answer is made by any thread.
    let (ordered, answers) = sync_channel::<Receiver<Ready>>(settings.depth);
    let (jobs, queue) = sync_channel::<Job>(settings.depth);
    let queue = std::sync::Arc::new(Mutex::new(queue));
    for thread in 0..settings.n_threads.max(1) {
        let queue = std::sync::Arc::clone(&queue);
        let work = move || {
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { at, raw, answer }) = job else {
                    return;
                };
                let outcome = decode(at, raw, settings);
                // Nobody waits for it any more where the work was stopped.
                let _ = answer.send(Ready { at, outcome });
            }
        };
        let builder = std::thread::Builder::new().name(format!("decoder {thread}"));
        builder.spawn_scoped(scope, work)?;
    }
    let reader = move || {
        inputs.visit(is_wanted, |at, raw| {
            let (answer, receiver) = sync_channel(1);
            ordered.send(receiver).is_ok() && jobs.send(Job { at, raw, answer }).is_ok()
        });
    };
    let builder = std::thread::Builder::new().name("reader".to_owned());
    builder.spawn_scoped(scope, reader)?;
    Ok(Images { answers })
}

/// Images in their order.
pub(super) struct Images {
    answers: Receiver<Receiver<Ready>>,
}

impl Iterator for Images {
    type Item = Ready;

    fn next(&mut self) -> Option<Ready> {
        // A decoder that panicked leaves an answer unsent; the panic is passed on when the scope ends.
        self.answers.recv().ok()?.recv().ok()
    }
}

fn decode(at: usize, raw: Raw, settings: Settings<'_>) -> Result<Decoded, String> {
    let of_table = settings.attributes.get(at).copied().unwrap_or_default();
    let of_bytes = |bytes: &[u8], origin: &Path| decode_radiograph_in(bytes, origin, settings.tone);
    let (read, origin) = match raw {
        Raw::Failed(reason) => return Err(reason),
        Raw::Stored(store, name) => {
            let pixels = store.image(&name).map_err(|error| error.to_string())?;
            let attributes = of_table.or(store.attributes(&name).unwrap_or_default());
            let sized = settings.network.prepared(pixels, attributes);
            return Ok(Decoded {
                sized: sized.map_err(|error| format!("{error:#}"))?,
                patient: None,
                study: None,
                warnings: Vec::new(),
            });
        }
        Raw::File(path) => (
            read_image_file(&path).and_then(|bytes| of_bytes(&bytes, &path)),
            path,
        ),
        Raw::Bytes(bytes, origin) => (of_bytes(&bytes, &origin), origin),
    };
    let radiograph: Radiograph = read.map_err(|error| reason(&error, &origin))?;
    let attributes = of_table.or(radiograph.attributes);
    let sized = settings.network.prepare(&radiograph.image, attributes);
    let sized = sized.map_err(|error| format!("{error:#}"))?;
    Ok(Decoded {
        sized,
        patient: radiograph.patient,
        study: radiograph.study,
        warnings: radiograph
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect(),
    })
}

/// What is wrong with an image, without its path, which stands beside it.
fn reason(error: &DatasetError, path: &Path) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    let named = format!("`{}`: ", path.display());
    match text.strip_prefix(&named) {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}
