//! The service, its token and its clock.

use std::time::{Duration, SystemTime};

use s0_api::Client;
use s0_host::ServiceAddress;

use super::Finding;
use crate::context::{Chosen, Context, service_option, soon};
use crate::screen::quoted;

/// How far the clocks may be apart before times mislead people.
const APART: Duration = Duration::from_secs(60);

pub(super) async fn check(context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    let chosen = match context.chosen() {
        Ok(chosen) => chosen,
        Err(failure) => {
            let next = "repair that first; `s0 --help` shows what a profile looks like";
            findings.push(Finding::failure("config", failure.to_string(), next));
            return findings;
        }
    };
    findings.push(Finding::ok(
        "config",
        match &chosen.profile {
            Some(profile) => format!("profile {} of {}", profile.name, profile.file.display()),
            None => match &context.profiles().file {
                Some(file) => format!("no profile is used ({})", file.display()),
                None => "no profile is used".into(),
            },
        },
    ));
    let url = match chosen.service.url() {
        Ok(url) => url,
        Err(why) => {
            findings.push(silent(context, &chosen, &why));
            return findings;
        }
    };
    let client = match chosen.service.client() {
        Ok(client) => client,
        // Without a token it can still be asked whether it is there.
        Err(why) => {
            let Ok(client) = Client::new(&url, "") else {
                let next = format!("repair the address, which {} names", chosen.address_of);
                findings.push(Finding::failure("service", why, next));
                return findings;
            };
            let answers = reach(&client, &chosen, &mut findings).await;
            if answers {
                findings.push(Finding::failure("token", why, token_next(&chosen)));
            }
            return findings;
        }
    };
    if reach(&client, &chosen, &mut findings).await {
        findings.push(token(&client, &chosen).await);
        findings.push(clock(&client).await);
    }
    findings
}

/// This machine's service does not run.
fn silent(context: &Context, chosen: &Chosen, why: &str) -> Finding {
    if s0_host::service_runs(&context.data_dir) {
        let next = "`s0 serve --stop` says what to do about it";
        return Finding::failure("service", "it starts, or hangs", next);
    }
    let start = format!("s0 serve --background{}", service_option(&chosen.service));
    let next = format!(
        "`{start}` starts one, and `s0 up` does so by itself; for one elsewhere give --server or a \
         profile"
    );
    let why = why.split(';').next().unwrap_or(why).to_owned();
    Finding::failure("service", why, next)
}

/// Whether the service answers.
async fn reach(client: &Client, chosen: &Chosen, findings: &mut Vec<Finding>) -> bool {
    let url = client.base_url();
    match soon(client.health()).await {
        Ok(()) => {
            let found = format!("{url} answers ({})", chosen.address_of);
            findings.push(Finding::ok("service", found));
            true
        }
        Err(failure) => {
            let next = match &chosen.service {
                ServiceAddress::Local(data_dir) => {
                    format!("its log is {}", quoted(&data_dir.join("service.log")))
                }
                ServiceAddress::Remote { .. } => format!(
                    "check that it runs, the address (of {}), and what is on the way: network, \
                     proxy, firewall",
                    chosen.address_of
                ),
            };
            findings.push(Finding::failure("service", format!("{url}: {failure}"), next));
            false
        }
    }
}

async fn token(client: &Client, chosen: &Chosen) -> Finding {
    match soon(client.volumes()).await {
        Ok(volumes) => Finding::ok(
            "token",
            format!(
                "{} is accepted ({} to be seen)",
                chosen.token_of,
                crate::screen::count(volumes.len(), "Volume")
            ),
        ),
        Err(failure) => {
            Finding::failure("token", format!("{}: {failure}", chosen.token_of), token_next(chosen))
        }
    }
}

fn token_next(chosen: &Chosen) -> String {
    format!(
        "it comes from {}; put a good one there: one that `s0 token create` made, or the text of \
         the file `token` in the service's data directory",
        chosen.token_of
    )
}

async fn clock(client: &Client) -> Finding {
    let before = SystemTime::now();
    let there = match soon(client.clock()).await {
        Ok(Some(there)) => there,
        Ok(None) => return Finding::ok("clock", "the service does not say its time"),
        Err(failure) => {
            return Finding::warning("clock", failure.to_string(), "run `s0 doctor` again");
        }
    };
    compared(before, there, SystemTime::now())
}

/// What a time of the service says that was told between two of ours. It is in whole
/// seconds, which are cut off.
fn compared(before: SystemTime, there: SystemTime, after: SystemTime) -> Finding {
    let behind = before.duration_since(there + Duration::from_secs(1)).unwrap_or_default();
    let ahead = there.duration_since(after).unwrap_or_default();
    let (apart, word) = if behind > ahead { (behind, "ahead of") } else { (ahead, "behind") };
    if apart <= APART {
        return Finding::ok("clock", "this machine and the service agree");
    }
    Finding::warning(
        "clock",
        format!("this machine is {} s {word} the service", apart.as_secs()),
        "nothing is lost for it, but times in histories and the ends of tokens mislead; set the \
         clock (`timedatectl set-ntp true`)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn clocks_are_compared_in_both_directions() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (there, says) in [
            (1000, None),
            (942, None),
            (1061, None),
            (900, Some("99 s ahead of")),
            (1100, Some("99 s behind")),
        ] {
            let finding = compared(at(1000), at(there), at(1001));
            match says {
                None => assert_eq!(finding.verdict, Verdict::Ok, "{there}"),
                Some(says) => assert!(finding.found.contains(says), "{}", finding.found),
            }
        }
    }
}
