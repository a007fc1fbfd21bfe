//! What a gateway's certificate is checked against: `tls_ca` where there is one.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::GatewayError;

/// What is trusted where a gateway names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The public authorities, as they came with this program.
    Public,
    /// What the machine trusts, its administrators' own authorities among it.
    Machine,
    /// Nobody proves who it is: it is spoken to without TLS.
    Nobody,
}

fn wrong(resource: &resources::Gateway, key: &'static str, message: &str) -> GatewayError {
    GatewayError::Setting {
        gateway: resource.name.clone(),
        key,
        message: message.into(),
    }
}

/// The name that its certificate is checked for; `None`: its host's, which `address` says.
pub(crate) fn name(resource: &resources::Gateway) -> Result<Option<ServerName<'static>>, GatewayError> {
    let name = resource.tls_name.clone().map(ServerName::try_from).transpose();
    name.map_err(|_| wrong(resource, "tls_name", "expected a host name"))
}

pub(crate) fn config(resource: &resources::Gateway, otherwise: Trust) -> Result<ClientConfig, GatewayError> {
    let wrong = |key, message| wrong(resource, key, message);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| wrong("tls", "this build has no TLS"))?;
    let mut roots = RootCertStore::empty();
    match (&resource.tls_ca, otherwise) {
        (None, Trust::Machine) => {
            return Ok(builder
                .with_platform_verifier()
                .map_err(|_| wrong("tls_ca", "this machine has no certificates to trust: name some in PEM"))?
                .with_no_client_auth());
        }
        (None, Trust::Nobody) => {}
        (None, Trust::Public) => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        (Some(pem), _) => {
            let expected = || wrong("tls_ca", "expected certificates in PEM");
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| expected())?;
                roots.add(certificate).map_err(|_| expected())?;
            }
            if roots.is_empty() {
                return Err(expected());
            }
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
