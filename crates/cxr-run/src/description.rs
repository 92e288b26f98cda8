//! What a weight file says of itself, without reading its tensors.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use crate::RunError;

/// The metadata key under which a weight file of ours says what it is, as JSON.
pub const DESCRIPTION_KEY: &str = "cxr";

/// The JSON that a weight file says of itself, its digest included, which is not checked; `None` where it says nothing.
/// `kind` is what the file should be.
///
/// # Errors
/// A file that cannot be read, or [`RunError::BadFile`] for one that is no weight file.
pub fn description_of(path: &Path, kind: &'static str) -> Result<Option<String>, RunError> {
    /// The format's own limit.
    const LONGEST: u64 = 100 << 20;
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__", default)]
        metadata: HashMap<String, String>,
    }
    let bad = |problem: String| RunError::BadFile {
        path: path.to_owned(),
        kind,
        problem,
    };
    let mut file = cxr_fs::open_regular(path)?;
    let mut length = [0; 8];
    let read = file.read_exact(&mut length);
    read.map_err(RunError::io("read", path))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST {
        return Err(bad(format!("its header is {length} bytes long")));
    }
    let mut header = Vec::new();
    let read = file.take(length).read_to_end(&mut header);
    read.map_err(RunError::io("read", path))?;
    let mut header: Header =
        serde_json::from_slice(&header).map_err(|error| bad(error.to_string()))?;
    Ok(header.metadata.remove(DESCRIPTION_KEY))
}
