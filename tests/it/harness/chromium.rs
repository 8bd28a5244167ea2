//! A real browser: headless Chromium, steered through chromedriver (Debian's `chromium` and `chromium-driver`).
//!
//! In: nothing. Out: a [`Chromium`] with a profile of its own, or nothing where it is not installed: with `CI=true` that
//! is a failure, else the test says that it skips. Screenshots go to `target/screenshots/`, which CI keeps.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

/// A browser takes its time to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One browser window.
pub struct Chromium {
    pub client: Client,
    driver: Child,
    _directory: tempfile::TempDir,
}

impl Chromium {
    /// Starts it, where it is installed.
    pub async fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("chromedriver.log");
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", directory.path())
            .env("HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::from(std::fs::File::create(&log).unwrap()))
            .stderr(Stdio::null())
            .spawn();
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                let packages = "Debian's chromium and chromium-driver";
                super::skipped(&format!("no chromedriver ({error}); install {packages}"));
                return None;
            }
        };
        let mut driver = Some(driver);
        let port = port(&log, driver.as_mut().unwrap()).await;
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"];
        let more = ["--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--force-device-scale-factor=1"];
        let arguments = [arguments, more].concat();
        let capabilities = json!({
            // The sandbox's certificate is signed by a root of its own.
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": arguments },
        });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(serde_json::from_value(capabilities).unwrap());
        let url = format!("http://127.0.0.1:{port}");
        let client = tokio::time::timeout(PATIENCE, builder.connect(&url)).await.expect("a browser in time").unwrap();
        Some(Self { client, driver: driver.take().unwrap(), _directory: directory })
    }

    /// Opens an address, as one types it in.
    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Waits for an element and clicks it.
    pub async fn click(&self, css: &str) {
        self.find(css).await.click().await.unwrap();
    }

    /// Waits until an element has this text.
    pub async fn shows(&self, css: &str, text: &str) {
        let started = Instant::now();
        loop {
            let shown = match self.client.find(Locator::Css(css)).await {
                Ok(element) => element.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if shown == text {
                return;
            }
            let url = self.client.current_url().await.map(|url| url.path().to_owned());
            assert!(started.elapsed() < PATIENCE, "{css} shows {shown:?}, not {text:?}, at {url:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn find(&self, css: &str) -> fantoccini::elements::Element {
        let wait = self.client.wait().at_most(PATIENCE);
        wait.for_element(Locator::Css(css)).await.unwrap_or_else(|error| panic!("no {css}: {error}"))
    }

    /// Makes the window so large, and light or dark.
    pub async fn look(&self, width: u32, height: u32, dark: bool) {
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}),
        )
        .await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.cdp("Emulation.setEmulatedMedia", features).await;
    }

    /// Keeps a picture of the window.
    pub async fn picture(&self, name: &str) -> PathBuf {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{name}.png"));
        let picture = self.client.screenshot().await.unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 2000, "{name} is no picture");
        std::fs::write(&path, picture).unwrap();
        path
    }

    /// Pictures of the same page on a desk and on a phone, light and dark; nothing may stick out sideways.
    pub async fn pictures(&self, name: &str) {
        for (suffix, width, height, dark) in
            [("desktop", 1100, 800, false), ("desktop-dark", 1100, 800, true), ("phone", 390, 844, false)]
        {
            self.look(width, height, dark).await;
            self.picture(&format!("{name}-{suffix}")).await;
            let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(
                self.client.execute(script, vec![]).await.unwrap(),
                0,
                "{name} {suffix} is wider than the window"
            );
        }
    }

    /// A command of Chromium's own protocol.
    async fn cdp(&self, command: &str, parameters: serde_json::Value) {
        self.client.issue_cmd(Cdp(json!({"cmd": command, "params": parameters}))).await.unwrap();
    }

    /// Ends it.
    pub async fn close(self) {
        let _ = self.client.clone().close().await;
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The driver takes its browser with it.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port it says that it listens on.
async fn port(log: &Path, driver: &mut Child) -> u16 {
    let started = Instant::now();
    loop {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let line = said.lines().find_map(|line| line.split_once("started successfully on port "));
        if let Some((_, port)) = line {
            return port.trim_end_matches('.').parse().unwrap();
        }
        let hopeless = driver.try_wait().unwrap().is_some() || started.elapsed() > PATIENCE;
        assert!(!hopeless, "chromedriver does not start: {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `goog/cdp/execute`.
#[derive(Debug)]
struct Cdp(serde_json::Value);

impl fantoccini::wd::WebDriverCompatibleCommand for Cdp {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}
