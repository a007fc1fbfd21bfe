//! `ContactService`.

use api::{Api, contacts::NewContact, events::ItemError};
use store::contacts::Change;
use tonic::{Request, Response, Status};

use super::events::item_error;
use crate::{
    convert::{contact_fields, to_map, to_struct},
    guard::caller,
    proto::{
        Contact, ContactResult, EraseContactRequest, EraseContactResponse, GetContactRequest, UpsertContactsRequest,
        UpsertContactsResponse, contact_result, contact_service_server::ContactService,
    },
    status::status,
};

#[derive(Debug)]
pub(crate) struct Contacts {
    pub api: Api,
}

#[tonic::async_trait]
impl ContactService for Contacts {
    async fn upsert(
        &self,
        request: Request<UpsertContactsRequest>,
    ) -> Result<Response<UpsertContactsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let items = request.contacts.into_iter().map(read).collect();
        // proto3 has no absent text: an empty one is none.
        let region = Some(request.region.as_str()).filter(|region| !region.is_empty());
        let results = self.api.contacts_upsert(&caller, items, region).await.map_err(status)?;
        let mut response = UpsertContactsResponse::default();
        for result in results {
            response.add(result);
        }
        Ok(Response::new(response))
    }

    async fn get(&self, request: Request<GetContactRequest>) -> Result<Response<Contact>, Status> {
        let caller = caller(&request)?;
        let contact = self
            .api
            .contact_get(&caller, &request.get_ref().id)
            .await
            .map_err(status)?;
        let fields = Some(to_struct(contact_fields(&contact)));
        Ok(Response::new(Contact { id: contact.id, fields }))
    }

    async fn erase(&self, request: Request<EraseContactRequest>) -> Result<Response<EraseContactResponse>, Status> {
        let caller = caller(&request)?;
        self.api
            .contact_erase(&caller, &request.get_ref().id)
            .await
            .map_err(status)?;
        Ok(Response::new(EraseContactResponse {}))
    }
}

impl UpsertContactsResponse {
    fn add(&mut self, result: Result<Change, ItemError>) {
        let (change, count) = match &result {
            Ok(Change::Created) => (contact_result::Change::Created, &mut self.created),
            Ok(Change::Updated) => (contact_result::Change::Updated, &mut self.updated),
            Ok(Change::Unchanged) => (contact_result::Change::Unchanged, &mut self.unchanged),
            Err(_) => (contact_result::Change::Unspecified, &mut self.rejected),
        };
        *count += 1;
        self.results.push(ContactResult {
            change: change.into(),
            error: result.err().map(item_error),
        });
    }
}

fn read(contact: Contact) -> Result<NewContact, ItemError> {
    let fields = to_map(contact.fields.as_ref()).map_err(|_| {
        ItemError::new(
            "bad_value",
            "fields",
            "a number that is not finite: expected finite numbers",
        )
    })?;
    Ok(NewContact { id: contact.id, fields })
}
