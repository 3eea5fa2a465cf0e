//! `flowshift incidents …`: speaks with the admin server of a running job, as anyone can over HTTP.
//!
//! [`client`] makes the requests, [`text`] shows the answers. Nothing is read from or written to AWS here, and nothing
//! is decided: the server checks what is said and says what is wrong with it.

pub(super) mod client;
mod text;

use serde_json::{Map, Value};

use super::{Failure, print_line, text_table};
use crate::cli::{End, IncidentsCommand, Said, Speaker};
use client::Client;

/// How long a dismissal lasts when nothing is said.
const DAY: &str = "24h";

pub(super) async fn run(command: IncidentsCommand) -> Result<(), Failure> {
    match command {
        IncidentsCommand::List(door) => {
            let incidents = Client::new(&door, None)?.get("/v1/incidents").await?;
            print_line(&if door.json { pretty(&incidents)? } else { text::list(&incidents, text_table::colours()) });
            Ok(())
        }
        IncidentsCommand::Ack { incident, speaker, said } => {
            say(&said, &format!("/v1/incidents/{}/acknowledge", path(&incident)), &speaker, Map::new()).await
        }
        IncidentsCommand::NotAnIssue { incident, mut end, speaker, said } => {
            if end.until.is_none() {
                end.lasts.get_or_insert_with(|| DAY.to_owned());
            }
            say(&said, &format!("/v1/incidents/{}/not-an-issue", path(&incident)), &speaker, ends(end)).await
        }
        IncidentsCommand::Mute { scope, force, end, speaker, said } => {
            let mut fields = ends(end);
            let signal = scope.signal.map(|signal| signal.as_str().to_owned());
            let places = [("pair", scope.pair), ("subnet", scope.subnet), ("az", scope.az), ("signal", signal)];
            fields.extend(places.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
            fields.extend(force.then(|| ("force".to_owned(), true.into())));
            say(&said, "/v1/mutes", &speaker, fields).await
        }
        IncidentsCommand::Unmute { id, speaker, said } => {
            say(&said, &format!("/v1/mutes/{}/unmute", path(&id)), &speaker, Map::new()).await
        }
    }
}

fn ends(end: End) -> Map<String, Value> {
    let both = [("for", end.lasts), ("until", end.until)];
    both.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect()
}

/// An id as one segment of a path, whatever was written.
pub(super) fn path(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let escaped =
        id.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    escaped.collect()
}

async fn say(said: &Said, path: &str, speaker: &Speaker, mut fields: Map<String, Value>) -> Result<(), Failure> {
    let client = Client::new(&said.door, Some(said.token_file.as_deref()))?;
    fields.insert("by".into(), speaker.by.as_str().into());
    fields.extend(speaker.note.iter().map(|note| ("note".to_owned(), note.as_str().into())));
    let mut answer = client.post(path, &Value::Object(fields)).await?;
    if said.wait {
        let id = answer["id"].as_str().unwrap_or_default().to_owned();
        answer["outcome"] = client.outcome(&id).await?.into();
    }
    print_line(&if said.door.json { pretty(&answer)? } else { text::answer(&answer) });
    match answer["outcome"].as_str() {
        None | Some("applied" | "repeated") => Ok(()),
        Some(outcome) => Err(Failure::start(anyhow::anyhow!("the job heard it and did nothing: {outcome}"))),
    }
}

fn pretty(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(Failure::start)
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn an_id_never_leaves_its_segment_of_the_path() {
        assert_eq!(path("inc-3f9a"), "inc-3f9a");
        assert_eq!(path("../mutes?x#y"), "%2E%2E%2Fmutes%3Fx%23y");
    }
}
