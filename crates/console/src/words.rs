//! The console's words in French and English. A page takes them as fields, so that a language that lacks one does not
//! compile.

use std::fmt;

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
    latest: "Campagnes", "Campaigns";
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
    /// A campaign's state.
    pub fn campaign_state(&self, state: &str) -> &'static str {
        let french = std::ptr::eq(self, &raw const FRENCH);
        match (state, french) {
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
}
