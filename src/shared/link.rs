//! A connection to Redis, for one app.
//!
//! In: a [`Server`], or the node of its cluster that has the app's keys. Out: answers of the script, or a [`Failure`] in
//! words for the operator; after one the connection is not used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Script};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::course::Course;
use super::in_time;
use super::script::{self, Answer, Clock};
use super::stand::Stand;
use crate::budget::Report;
use crate::https::{DialError, Dialer};
use crate::origin::Origin;
use crate::redis_url::RedisUrl;
use crate::secret::RedisPassword;

/// For a connection and its greeting.
const OPENING: Duration = Duration::from_secs(1);

/// Where Redis is, and how we come in.
#[derive(Debug)]
pub struct Server {
    /// Where.
    pub url: RedisUrl,
    /// The ACL user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<RedisPassword>,
    /// What this replica is called: the same each time it is started, and another one for each that runs.
    pub name: String,
    /// What the names of keys begin with.
    pub prefix: String,
    /// The client ids of apps, by which Cloudbeds counts; an app without one is counted by its name.
    pub clients: HashMap<String, String>,
    /// How it is dialled.
    pub dialer: Dialer,
    /// Who answers for budgets in its place.
    pub stand: Option<Arc<dyn Stand>>,
}

impl Server {
    /// A failure's words, unless they are Redis' own and repeat the password: what it calls itself may be anything, and
    /// servers that do not know a command repeat what came with it.
    pub(super) fn words(&self, why: &Failure) -> String {
        let words = why.to_string();
        match &self.password {
            Some(password) if password.is_in(&words) => "its words hold the password, and are not repeated".to_owned(),
            _ => words,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no connection.
    #[error("{}", chain(.0))]
    Dial(#[from] DialError),
    /// None in time.
    #[error("it did not answer in time")]
    Slow,
    /// Redis says so: refused, full, read-only, loading.
    #[error("{0}")]
    Refused(String),
    /// Another node of its cluster has the keys.
    #[error("another node of the cluster has the keys: {}", .0.authority())]
    Moved(Box<Origin>),
    /// It is not what the script returns.
    #[error("its answer makes no sense; does something else write to its keys?")]
    Nonsense,
    /// What asks it has panicked.
    #[error("this program failed in asking it, which is a defect of it; the log says where")]
    Defect,
    /// Times cannot be told.
    #[error("the clocks of Redis and of this machine are more than a day apart")]
    Clock,
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<redis::RedisError> for Failure {
    fn from(error: redis::RedisError) -> Self {
        if let Some((node, _slot)) = error.redirect_node()
            && let Ok(node) = format!("https://{node}").parse()
        {
            return Self::Moved(Box::new(node));
        }
        // The code and Redis' own words, which `Server::words` looks at before they are told.
        Self::Refused(error.to_string())
    }
}

/// An open connection, and what moves it on.
pub(super) struct Wire {
    pub(super) connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Wire {
    /// Connects, says who we are, and asks who answers: the server's own name for its present life.
    pub(super) async fn open(server: &Server, at: &Origin) -> Result<(Self, String), Failure> {
        let stream = server.dialer.dial_redis(at, server.url.tls).await?;
        let mut info = RedisConnectionInfo::default().set_db(i64::from(server.url.database));
        if let Some(user) = &server.user {
            info = info.set_username(user);
        }
        if let Some(password) = &server.password {
            #[cfg(debug_assertions)]
            crate::telemetry::panic::if_a_test_asks("redis", || password.for_login().to_owned());
            info = info.set_password(password.for_login());
        }
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&info, stream, AsyncConnectionConfig::new()).await?;
        let mut wire = Self { connection, driver: tokio::spawn(driver) };
        let told: String = redis::cmd("INFO").arg("server").query_async(&mut wire.connection).await?;
        let run = run_of(&told).ok_or(Failure::Nonsense)?.to_owned();
        Ok((wire, run))
    }
}

/// The name of a server's present life. Without one, nobody could tell that another server answers.
fn run_of(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::trim).filter(|run| !run.is_empty())
}

/// Who answers.
enum Way {
    Redis(Wire, Scripts),
    Stand(Arc<dyn Stand>),
}

struct Scripts {
    budget: Script,
    sign: Script,
}

impl Way {
    async fn sign(&mut self, key: &str) -> Result<String, Failure> {
        match self {
            Self::Redis(wire, scripts) => Ok(scripts.sign.key(key).invoke_async(&mut wire.connection).await?),
            Self::Stand(stand) => stand.sign(key).await,
        }
    }

    async fn answer(&mut self, key: &str, argument: String) -> Result<String, Failure> {
        match self {
            Self::Redis(wire, scripts) => {
                let mut invocation = scripts.budget.key(key);
                invocation.arg(argument);
                Ok(invocation.invoke_async(&mut wire.connection).await?)
            }
            Self::Stand(stand) => stand.answer(key, &argument).await,
        }
    }
}

/// A connection for one app's budget.
pub(super) struct Link {
    way: Way,
    key: String,
    /// The server's own name for its present life.
    run: String,
    clock: Option<Clock>,
    course: Option<Course>,
}

impl Link {
    /// Connects to the server, or to another node of its cluster, says who we are, and asks who answers.
    pub(super) async fn open(server: &Arc<Server>, node: Option<&Origin>, app: &str) -> Result<Self, Failure> {
        let client = server.clients.get(app).map_or(app, String::as_str);
        let key = format!("{{{}:{client}}}:budget", server.prefix);
        let at = node.unwrap_or(&server.url.server);
        timeout(OPENING, Self::to(server, at, &key)).await.unwrap_or(Err(Failure::Slow))
    }

    async fn to(server: &Arc<Server>, at: &Origin, key: &str) -> Result<Self, Failure> {
        let (way, run) = match &server.stand {
            Some(stand) => (Way::Stand(Arc::clone(stand)), stand.run().to_owned()),
            None => {
                let (wire, run) = Wire::open(server, at).await?;
                let scripts = Scripts { budget: Script::new(script::BUDGET), sign: Script::new(script::SIGN) };
                (Way::Redis(wire, scripts), run)
            }
        };
        Ok(Self { way, key: key.to_owned(), run, clock: None, course: None })
    }

    /// What is known of the clock of a server's life, for the next connection.
    pub(super) fn into_course(self) -> Option<(String, Course)> {
        self.course.map(|course| (self.run, course))
    }

    /// What an earlier connection to the same life knew of its clock.
    pub(super) fn remember(&mut self, known: Option<(String, Course)>) {
        self.course = known.filter(|(run, _)| *run == self.run).map(|(_, course)| course);
    }

    /// Whether the server is there, asked now.
    pub(super) async fn sign(&mut self, sent: Instant) -> Result<(), Failure> {
        let text = in_time(sent, self.way.sign(&self.key)).await?;
        if text == "OK" { Ok(()) } else { Err(Failure::Nonsense) }
    }

    /// The report of `sent`, and its answer.
    pub(super) async fn call(
        &mut self,
        name: (&str, &str),
        report: &Report,
        sent: Instant,
        bye: bool,
    ) -> Result<Answer, Failure> {
        let jumped = self.course.as_ref().is_some_and(|course| course.jumped);
        let argument = script::argument(name, &self.run, (self.clock, jumped), sent, report, bye)
            .map_err(|_| Failure::Nonsense)?;
        let text = in_time(sent, self.way.answer(&self.key, argument)).await?;
        let received = Instant::now();
        let (answer, clock) = script::answer(&text, report.granted, received).ok_or(Failure::Nonsense)?;
        self.clock = Some(clock);
        let Some(course) = &mut self.course else {
            self.course = Some(Course::new(clock.shown, sent, received));
            return Ok(answer);
        };
        if !course.goes_on(clock.shown, sent, received) {
            // What it grants rests on a wrong count. The next report says so.
            return Ok(Answer::Late);
        }
        if matches!(answer, Answer::Granted(_)) {
            course.jumped = false;
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::run_of;

    #[test]
    fn a_server_without_a_name_for_its_life_is_none_to_share_by() {
        assert_eq!(run_of("# Server\r\nredis_version:7.0.15\r\nrun_id:0f9a\r\nport:1\r\n"), Some("0f9a"));
        for info in ["", "# Server\r\nredis_version:7.0.15\r\n", "run_id:\r\n", "xrun_id:0f9a\r\n"] {
            assert_eq!(run_of(info), None, "{info}");
        }
    }
}
