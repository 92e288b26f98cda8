//! Chromium without a window, spoken to over a pipe in its DevTools protocol: JSON messages that end in
//! a zero byte, so that neither a port nor a web socket is needed.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// Names under which the browser is installed.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
/// A browser that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running browser; it ends with the value.
pub(super) struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    next_id: u64,
    session: String,
    events: Vec<Value>,
    /// Its profile, fresh, so that nothing of the user's is read or changed.
    _profile: tempfile::TempDir,
}

/// The browser to use: the one that was named, else the first of the usual names in the `PATH`.
pub(super) fn find(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|candidate| candidate.is_file())
}

impl Browser {
    /// Starts it with one empty page.
    pub(super) fn start(program: &Path) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir().context("cannot make a folder for the profile")?;
        // The protocol is on descriptors 3 and 4, which only a shell can set.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null",
                "sh",
            ])
            .arg(program)
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", program.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("cannot speak with `{}`", program.display());
        };
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop_if(|last| *last == 0);
                let Ok(value) = serde_json::from_slice(&message) else {
                    return;
                };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            input,
            messages,
            next_id: 0,
            session: String::new(),
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        )?;
        browser.session = attached["sessionId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Sends a command and waits for its answer; events in between are kept.
    pub(super) fn call(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.input
            .write_all(&bytes)
            .and_then(|()| self.input.flush())
            .context("the browser has gone away")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.next_message(deadline, method)?;
            if answer["id"] != json!(id) {
                self.events.push(answer);
                continue;
            }
            if let Some(error) = answer.get("error") {
                bail!("the browser refuses `{method}`: {error}");
            }
            return Ok(answer["result"].clone());
        }
    }

    fn next_message(&self, deadline: Instant, waiting_for: &str) -> anyhow::Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(left) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the browser said nothing for {PATIENCE:?} after `{waiting_for}`")
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the browser ended before it answered `{waiting_for}`")
            }
        }
    }

    /// Opens a file and waits until it is loaded; gives back the address.
    pub(super) fn open(&mut self, file: &Path) -> anyhow::Result<String> {
        self.events.clear();
        let address = format!("file://{}", file.display());
        self.call("Page.navigate", json!({"url": address}))?;
        let deadline = Instant::now() + PATIENCE;
        while !self
            .events
            .iter()
            .any(|event| event["method"] == "Page.loadEventFired")
        {
            let message = self.next_message(deadline, "Page.navigate")?;
            self.events.push(message);
        }
        Ok(address)
    }

    /// Evaluates an expression in the page; its value must be JSON.
    pub(super) fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        )?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("an exception in the page: {exception}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Moves the mouse to a place of the window, in CSS pixels.
    pub(super) fn point_at(&mut self, x: f64, y: f64) -> anyhow::Result<()> {
        let event = json!({"type": "mouseMoved", "x": x, "y": y});
        self.call("Input.dispatchMouseEvent", event)?;
        Ok(())
    }

    /// Clicks there.
    pub(super) fn click(&mut self, x: f64, y: f64) -> anyhow::Result<()> {
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Sets the window's size and colours.
    pub(super) fn resize(&mut self, width: u32, height: u32, is_dark: bool) -> anyhow::Result<()> {
        let is_phone = width < 600;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({
                "width": width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": is_phone,
            }),
        )?;
        let scheme = if is_dark { "dark" } else { "light" };
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        )?;
        Ok(())
    }

    /// A picture of the window as PNG.
    pub(super) fn screenshot(&mut self) -> anyhow::Result<Vec<u8>> {
        use base64::Engine as _;
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let text = answer["data"].as_str().unwrap_or_default();
        Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
    }

    /// Everything that the page did and should not have: errors, warnings, requests for anything but
    /// `address`.
    pub(super) fn complaints(&self, address: &str) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|event| complaint(event, address))
            .collect()
    }
}

fn complaint(event: &Value, address: &str) -> Option<String> {
    let parameters = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(format!("exception: {}", parameters["exceptionDetails"])),
        "Runtime.consoleAPICalled" => {
            let kind = parameters["type"].as_str()?;
            let is_bad = ["error", "warning", "assert"].contains(&kind);
            is_bad.then(|| format!("console {kind}: {}", parameters["args"]))
        }
        "Log.entryAdded" => {
            let entry = &parameters["entry"];
            let level = entry["level"].as_str()?;
            let is_bad = ["error", "warning"].contains(&level);
            is_bad.then(|| format!("log {level}: {}", entry["text"]))
        }
        "Network.requestWillBeSent" => {
            let requested = parameters["request"]["url"].as_str()?;
            let is_own = requested == address || requested.starts_with("data:");
            (!is_own).then(|| format!("request: {requested}"))
        }
        _ => None,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_errors_are_complaints_and_the_page_itself_is_none() {
        let request = |url: &str| json!({"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}});
        let page = "file:///r/report.html";
        assert_eq!(complaint(&request(page), page), None);
        assert_eq!(complaint(&request("data:image/png;base64,AA"), page), None);
        let found = complaint(&request("https://fonts.example/x"), page);
        assert_eq!(found, Some("request: https://fonts.example/x".to_owned()));
        let console = |kind: &str| json!({"method": "Runtime.consoleAPICalled", "params": {"type": kind, "args": []}});
        assert!(complaint(&console("error"), page).is_some());
        assert_eq!(complaint(&console("log"), page), None);
    }
}
