//! The console's words in French and English. A page takes them as fields, so that a language that lacks one does not
//! compile.

use std::fmt;

use api::{ApiError, ErrorKind};
use domain::Reason;

/// A language of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    French,
    English,
}

impl Language {
    pub fn tag(self) -> &'static str {
        match self {
            Language::French => "fr",
            Language::English => "en",
        }
    }

    pub fn other(self) -> Language {
        match self {
            Language::French => Language::English,
            Language::English => Language::French,
        }
    }

    pub fn words(self) -> &'static Words {
        match self {
            Language::French => &FRENCH,
            Language::English => &ENGLISH,
        }
    }

    pub fn from_tag(tag: &str) -> Option<Language> {
        match tag.get(..2)?.to_ascii_lowercase().as_str() {
            "fr" => Some(Language::French),
            "en" => Some(Language::English),
            _ => None,
        }
    }

    /// The first language of an `accept-language` header that we have (RFC 9110, section 12.5.4; its order is the
    /// browser's order of preference). French where it says nothing.
    pub fn accepted(header: Option<&str>) -> Language {
        header
            .into_iter()
            .flat_map(|header| header.split(','))
            .find_map(|range| Language::from_tag(range.trim()))
            .unwrap_or(Language::French)
    }

    /// A whole number with the language's thousands separator (a no-break space, a comma).
    pub fn number(self, number: i64) -> String {
        let digits = number.unsigned_abs().to_string();
        let separator = match self {
            Language::French => '\u{202f}',
            Language::English => ',',
        };
        let mut text = String::with_capacity(digits.len() * 2);
        if number < 0 {
            text.push('-');
        }
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(separator);
            }
            text.push(digit);
        }
        text
    }

    /// Millionths of the account's currency, to the cent (rounded up: an estimate never promises less than it costs).
    pub fn money(self, micros: i64) -> String {
        let cents = micros.div_euclid(10_000) + i64::from(micros.rem_euclid(10_000) > 0);
        let mark = match self {
            Language::French => ',',
            Language::English => '.',
        };
        format!("{}{mark}{:02}", self.number(cents / 100), (cents % 100).abs())
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())
    }
}

macro_rules! words {
    ($($name:ident: $french:literal, $english:literal;)*) => {
        #[derive(Debug)]
        pub struct Words { $(pub $name: &'static str,)* }
        static FRENCH: Words = Words { $($name: $french,)* };
        static ENGLISH: Words = Words { $($name: $english,)* };
    };
}

words! {
    sign_in: "Se connecter", "Sign in";
    sign_out: "Se déconnecter", "Sign out";
    user: "Utilisateur", "User";
    password: "Mot de passe", "Password";
    password_hint: "Une clé d'accès : tt_…", "An API key: tt_…";
    wrong_password: "Utilisateur ou mot de passe inconnu.", "Unknown user or password.";
    other_language: "English", "Français";
    home: "Accueil", "Home";
    announce: "Annoncer", "Announce";
    sending_now: "En cours d'envoi", "Being sent";
    nothing_sent: "Aucune campagne pour l'instant.", "No campaign yet.";
    campaigns: "Campagnes", "Campaigns";
    latest: "Les plus récentes", "The latest";
    name: "Nom", "Name";
    state: "État", "State";
    progress: "Avancement", "Progress";
    planned: "Prévus", "Planned";
    delivered: "Reçus", "Delivered";
    accepted: "Envoyés, accusé attendu", "Sent, receipt awaited";
    failed: "Échoués", "Failed";
    suppressed: "Écartés", "Left out";
    expired: "Trop tard", "Too late";
    cancelled: "Annulés", "Cancelled";
    unknown: "Issue inconnue", "Outcome unknown";
    pending: "En chemin", "On its way";
    launched: "Lancée", "Launched";
    created_by: "par", "by";
    pause: "Mettre en pause", "Pause";
    resume: "Reprendre", "Resume";
    cancel: "Annuler la campagne", "Cancel the campaign";
    cancel_sure: "Annuler pour de bon ? Ce qui n'est pas parti ne partira plus.", "Cancel for good? What has not left will not leave.";
    whom: "À qui ?", "To whom?";
    whom_hint: "Exemple : gender = \"female\" and age < 30 and region = \"north\"", "Example: gender = \"female\" and age < 30 and region = \"north\"";
    everybody_hint: "Laissez vide pour tous les contacts.", "Leave empty for all contacts.";
    contacts: "contacts", "contacts";
    contact: "contact", "contact";
    campaign_name: "Nom de la campagne", "Name of the campaign";
    text: "Texte", "Text";
    text_hint: "Champs : {{ contact.first_name | default('Bonjour') }}, {{ campaign.deadline }}", "Fields: {{ contact.first_name | default('Hello') }}, {{ campaign.deadline }}";
    sender: "Expéditeur", "Sender";
    sender_hint: "3 à 11 lettres ou chiffres", "3 to 11 letters or digits";
    smart: "Remplacer ’ « » ê … par des caractères qui coûtent moins", "Replace ’ “ ” ê … by characters that cost less";
    deadline: "Fin de l'offre", "End of the offer";
    deadline_hint: "Rien ne part après. Facultatif.", "Nothing leaves after it. Optional.";
    starts: "Envoyer", "Send";
    starts_hint: "Vide : dès le lancement.", "Empty: at once.";
    zone: "Heures du fuseau", "Times in the zone";
    characters: "unités", "units";
    sms_part: "SMS", "SMS";
    left: "restants dans le dernier", "left in the last one";
    previews: "Aperçus", "Previews";
    no_preview: "Aucun contact à qui montrer ce texte.", "No contact to show this text for.";
    cost: "Coût estimé", "Estimated cost";
    parts: "SMS à envoyer", "SMS to send";
    left_out: "Écartés d'après un échantillon", "Left out, from a sample";
    ends: "Durée estimée au débit de la passerelle", "Expected time at the gateway's rate";
    seconds: "s", "s";
    minutes: "min", "min";
    hours: "h", "h";
    check: "Vérifier avant l'envoi", "Check before sending";
    summary: "Avant l'envoi", "Before sending";
    send_to: "Envoyer à", "Send to";
    change: "Modifier", "Change";
    name_wrong: "Le nom de la campagne : 1 à 200 caractères.", "The campaign's name: expected 1 to 200 characters.";
    sender_wrong: "L'expéditeur : 3 à 11 lettres, chiffres ou espaces en commençant par une lettre, un numéro court de 3 à 8 chiffres, ou un numéro international en +.", "The sender: expected 3 to 11 letters, digits or spaces beginning with a letter, a short code of 3 to 8 digits, or a number in E.164.";
    text_wrong: "Le texte : 1 à 10 000 octets, sans caractère NUL.", "The text: expected 1 to 10,000 bytes, without a NUL character.";
    start_wrong: "Le moment de l'envoi : un jour et une heure.", "When to send: expected a day and a time.";
    deadline_wrong: "La fin de l'offre : un jour et une heure.", "The end of the offer: expected a day and a time.";
    zone_wrong: "Le fuseau : un nom IANA, par exemple Indian/Reunion.", "The time zone: expected an IANA zone such as Indian/Reunion.";
    summary_wrong: "Ce récapitulatif n'est pas le nôtre : vérifiez encore une fois.", "This summary is not ours: check once more.";
    no_text: "Pour certains contacts il n'y a pas de texte :", "For some contacts there is no text:";
    not_found: "Cette page n'existe pas.", "There is no such page.";
    went_wrong: "Quelque chose n'a pas marché", "Something went wrong";
    history: "Journal", "Log";
    replies: "Réponses", "Replies";
    replies_hint: "Ces réponses ressemblent à un refus et n'en sont pas le mot-clé : rien n'est décidé avant vous. Le texte s'efface avec la décision.", "These replies sound like an opt-out and are not its keyword: nothing is decided before you do. The text goes with the decision.";
    no_replies: "Aucune réponse n'attend de décision.", "No reply waits for a decision.";
    replies_more: "Les plus anciennes ; d'autres suivront.", "The oldest; more follow.";
    reply_gone: "Quelqu'un a déjà décidé de cette réponse.", "Somebody has decided on this reply already.";
    received: "Arrivée", "Received";
    reply_from: "De", "From";
    nobody_known: "numéro inconnu", "unknown number";
    reply_stop: "Stop", "Stop";
    reply_stop_means: "Plus de publicité à ce numéro", "No marketing to this number any more";
    reply_dismiss: "Ignorer", "Dismiss";
    reply_dismiss_means: "Ce n'est pas un refus", "It is no opt-out";
    forbidden: "Votre clé ne permet pas cette action.", "Your key does not allow this.";
}

impl Words {
    fn is_french(&self) -> bool {
        std::ptr::eq(self, &raw const FRENCH)
    }

    /// A campaign's state.
    pub fn campaign_state(&self, state: &str) -> &'static str {
        match (state, self.is_french()) {
            ("draft", true) => "brouillon",
            ("draft", false) => "draft",
            ("scheduled", true) => "programmée",
            ("scheduled", false) => "scheduled",
            ("running", true) => "en cours",
            ("running", false) => "running",
            ("paused", true) => "en pause",
            ("paused", false) => "paused",
            ("finished", true) => "terminée",
            ("finished", false) => "finished",
            ("cancelled", true) => "annulée",
            ("cancelled", false) => "cancelled",
            _ => "?",
        }
    }

    /// What was done with a campaign, from its log. An action without a word of ours stays as it is.
    pub fn campaign_action<'a>(&self, action: &'a str) -> &'a str {
        if !self.is_french() {
            return action;
        }
        match action {
            "created" => "créée",
            "launched" => "lancée",
            "started" => "commencée",
            "paused" => "mise en pause",
            "resumed" => "reprise",
            "cancelled" => "annulée",
            "finished" => "terminée",
            "left out" => "passée",
            "audience cannot be read" => "audience illisible",
            other => other,
        }
    }

    /// Why a message is not sent.
    pub fn reason(&self, reason: Reason) -> &'static str {
        let (french, english) = match reason {
            Reason::UnknownContact => ("contact inconnu", "unknown contact"),
            Reason::NoPhone => ("sans téléphone", "no phone"),
            Reason::NoConsent => ("sans consentement", "no consent"),
            Reason::Stopped => ("a répondu STOP", "answered STOP"),
            Reason::Blocked => ("bloqué", "blocked"),
            Reason::QuietHours => ("heures de silence", "quiet hours"),
            Reason::CapReached => ("trop de messages déjà", "too many messages already"),
            Reason::DuplicatePhone => ("même téléphone qu'un autre contact", "same phone as another contact"),
            Reason::DuplicateText => ("même texte il y a peu", "same text a short while ago"),
            Reason::InvalidPhone => ("téléphone invalide", "invalid phone"),
            Reason::DestinationNotAllowed => ("destination non permise", "destination not allowed"),
            Reason::DestinationLimit => ("limite de la destination", "limit of the destination"),
            Reason::MissingValue => ("champ manquant", "missing field"),
            Reason::UnknownTemplate => ("modèle inconnu", "unknown template"),
            Reason::TemplateFailed => ("modèle en erreur", "template failed"),
            Reason::Budget => ("budget épuisé", "budget spent"),
            Reason::ControlGroup => ("groupe témoin", "control group"),
            Reason::DeadlinePassed => ("offre terminée", "offer over"),
            Reason::ValidityPassed => ("délai dépassé", "too old"),
            Reason::NoGateway => ("aucune passerelle", "no gateway"),
            Reason::GatewayRefused => ("refusé par la passerelle", "refused by the gateway"),
            Reason::RetriesExhausted => ("trop d'essais", "too many tries"),
            Reason::Undeliverable => ("impossible à remettre", "undeliverable"),
            Reason::OutcomeUnknown => ("issue inconnue", "outcome unknown"),
            Reason::NoReceipt => ("sans accusé", "no receipt"),
            Reason::CampaignCancelled => ("campagne annulée", "campaign cancelled"),
            Reason::TriggerOff => ("déclencheur arrêté", "trigger switched off"),
        };
        if self.is_french() { french } else { english }
    }

    /// What stands before an operation's own message, which is English: nothing in English.
    pub fn refused(&self, error: &ApiError) -> Option<&'static str> {
        if !self.is_french() {
            return None;
        }
        Some(match (error.kind, error.field.as_deref()) {
            (ErrorKind::Invalid, Some("where")) => "L'expression n'est pas comprise",
            (ErrorKind::Invalid, Some("text")) => "Le texte n'est pas compris",
            (ErrorKind::Invalid, _) => "La demande n'est pas comprise",
            (ErrorKind::NotFound, _) => "Introuvable",
            (ErrorKind::Conflict, _) => "Impossible dans l'état actuel",
            (ErrorKind::Forbidden, _) => self.forbidden,
            (ErrorKind::Unauthenticated, _) => "Personne n'est connecté",
            (ErrorKind::Unavailable, _) => "Pas de réponse pour l'instant : réessayez",
            (ErrorKind::Internal, _) => self.went_wrong,
        })
    }

    /// The place in a text that a message begins with (`line 1, column 9: …`), in this language, and the rest.
    pub fn place<'a>(&self, message: &'a str) -> (Option<String>, &'a str) {
        let Some((place, rest)) = message.split_once(": ") else {
            return (None, message);
        };
        let is_place = place.split(", ").all(|part| {
            let number = part.strip_prefix("line ").or_else(|| part.strip_prefix("column "));
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        match (is_place, self.is_french()) {
            (true, true) => (Some(place.replace("line", "ligne").replace("column", "colonne")), rest),
            (true, false) => (Some(place.to_owned()), rest),
            (false, _) => (None, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_money_are_written_as_the_language_does() {
        assert_eq!(Language::English.number(1_234_567), "1,234,567");
        assert_eq!(Language::French.number(1_234), "1\u{202f}234");
        assert_eq!(Language::English.number(-999), "-999");
        assert_eq!(Language::French.money(45_600_000), "45,60");
        assert_eq!(Language::English.money(10_001), "0.02");
    }

    #[test]
    fn the_browsers_first_language_that_we_have_is_taken() {
        assert_eq!(
            Language::accepted(Some("de-DE,de;q=0.9,en;q=0.8,fr;q=0.7")),
            Language::English
        );
        assert_eq!(Language::accepted(Some("fr-RE")), Language::French);
        assert_eq!(Language::accepted(None), Language::French);
    }

    #[test]
    fn states_are_translated() {
        assert_eq!(Language::French.words().campaign_state("running"), "en cours");
        assert_eq!(Language::English.words().campaign_state("running"), "running");
    }

    #[test]
    fn reasons_and_actions_are_translated() {
        let (french, english) = (Language::French.words(), Language::English.words());
        for reason in Reason::ALL {
            assert_ne!(french.reason(reason), english.reason(reason), "{reason:?}");
        }
        for action in [
            "created",
            "launched",
            "started",
            "paused",
            "resumed",
            "cancelled",
            "finished",
            "left out",
        ] {
            assert_ne!(french.campaign_action(action), action);
            assert_eq!(english.campaign_action(action), action);
        }
        assert_eq!(french.campaign_action("something new"), "something new");
    }

    #[test]
    fn the_place_of_a_mistake_is_told_in_the_language() {
        let french = Language::French.words();
        assert_eq!(
            french.place("column 10: expected a value"),
            (Some("colonne 10".into()), "expected a value")
        );
        assert_eq!(
            french.place("line 1, column 2: no"),
            (Some("ligne 1, colonne 2".into()), "no")
        );
        assert_eq!(
            french.place("there is no audience: none"),
            (None, "there is no audience: none")
        );
        assert_eq!(french.place("nothing"), (None, "nothing"));
    }
}
