//! Models on the hub: `cxr publish`, and `hub:OWNER/NAME` where a model is expected.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use cxr_hub::{
    Endpoint, Event, HubError, ModelReference, Options, Publication, Repository, RepositoryKind,
    fetch_model, publish,
};
use cxr_model::ModelCard;
use indicatif::DecimalBytes;

use crate::card::page;
use crate::explain::model_file;
use crate::progress::say;
use crate::scoring::print;
use crate::train::{interrupted, stop_flag};

/// Publish a model on the hub: lists what would be sent, and sends it with `--yes`
///
/// The model file, its page (README.md with `model-index`, as `cxr card` writes it), and of a run's folder also its
/// report.html, or the one of its experiment, and every *.onnx go into one commit. What the repository has already is not
/// sent again; one that is not there is made, private until its owner changes that on the hub. A report may embed
/// radiographs that `cxr explain` drew on: look at it before they leave your house.
///
/// Sending needs a token that may write: HF_TOKEN, or a login with `hf auth login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cxr publish models/runs/paper/fzlpr-0.2 --repo somebody/chest-network
  cxr publish models/runs/paper/fzlpr-0.2 --repo somebody/chest-network --yes
  cxr predict hub:somebody/chest-network scans/ --out predictions.csv")]
pub(crate) struct Args {
    /// A model: a run's folder, or a model.safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// The repository
    #[arg(long, value_name = "OWNER/NAME")]
    repo: String,

    /// Send it, instead of listing what would be sent
    #[arg(long)]
    yes: bool,

    /// The hub's address; otherwise that of the environment variable HF_ENDPOINT, or huggingface.co
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let repository = Repository::new(RepositoryKind::Model, &args.repo, "main")?;
    let file = model_file(&args.model);
    let card = ModelCard::read(&file)?;
    let publication = Publication::of_model(repository, &args.model, &page(&file, &card)?)?;
    if card.licence.is_none() {
        say(
            "the model does not say its licence; `cxr card --licence NAME --save FILE` writes a copy that does",
        );
    }
    if !args.yes {
        print(&publication.to_string())?;
        say("nothing was sent; the same command with `--yes` sends it");
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::from_environment(args.endpoint.clone()).context("HF_ENDPOINT")?;
    let stop = stop_flag()?;
    match publish(&publication, &options, &mut tell, &stop) {
        Err(HubError::Interrupted) => Ok(interrupted()),
        published => {
            let published = published?;
            say(&match published.changed.as_slice() {
                [] => "the repository has all of it already".to_owned(),
                changed => format!("sent and verified: {}", changed.join(", ")),
            });
            print(&format!("{}\n", published.url))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The file of a model: a path, a run's folder, or `hub:OWNER/NAME`, which is fetched to models/hub in the home folder
/// unless it is there.
pub(crate) fn model(model: &Path) -> anyhow::Result<PathBuf> {
    let reference = model
        .to_str()
        .filter(|text| text.starts_with(ModelReference::PREFIX));
    let Some(reference) = reference else {
        return Ok(model_file(model));
    };
    let reference: ModelReference = reference.parse()?;
    let options = Options::from_environment(None).context("HF_ENDPOINT")?;
    let home = std::env::var_os("CXR_HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = home.join("models").join("hub");
    // Until there is something to lose, Ctrl-C just ends the program: what was received stays.
    let stop = AtomicBool::new(false);
    loop {
        match fetch_model(&reference, &folder, &options, &mut tell, &stop) {
            // Another shard of the same job.
            Err(HubError::Busy { .. }) => std::thread::sleep(Duration::from_secs(1)),
            fetched => {
                let fetched = fetched.with_context(|| format!("cannot fetch `{reference}`"))?;
                return Ok(fetched.path);
            }
        }
    }
}

/// Says what takes time.
fn tell(event: &Event<'_>) {
    match event {
        Event::Started { url, bytes, .. } => {
            let size = bytes.map_or_else(String::new, |bytes| format!(", {}", DecimalBytes(bytes)));
            say(&format!("fetching `{url}`{size}"));
        }
        Event::Sending { file, bytes } => say(&format!("sending {file}, {}", DecimalBytes(*bytes))),
        Event::Retrying { reason, pause, .. } => {
            say(&format!("{reason}; again in {:.0} s", pause.as_secs_f32()));
        }
        Event::Rejected { file } => {
            say(&format!(
                "{file} is not the expected file, renamed to {file}.rejected"
            ));
        }
        _ => {}
    }
}
