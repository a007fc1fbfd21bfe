// An SMPP server made of another project's library. It takes what it is given, throttles the first submission that it
// sees, reports each message as delivered, and tells on standard output what it read, a line of JSON each.
'use strict';
const smpp = require('smpp');

const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');
let next = 1;
let throttled = false;

const server = smpp.createServer((session) => {
  session.on('error', (error) => tell({ error: String(error) }));
  for (const bind of ['bind_transceiver', 'bind_transmitter', 'bind_receiver']) {
    session.on(bind, (pdu) => {
      tell({ bind, system_id: pdu.system_id, password: pdu.password });
      session.send(pdu.response({ system_id: 'stranger' }));
    });
  }
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => {
    tell({ unbind: true });
    session.send(pdu.response());
  });
  session.on('submit_sm', (pdu) => {
    if (!throttled) {
      throttled = true;
      session.send(pdu.response({ command_status: smpp.ESME_RTHROTTLED }));
      return;
    }
    const id = String(next++);
    const udh = pdu.short_message.udh ? pdu.short_message.udh[0] : null;
    tell({
      id,
      to: pdu.destination_addr,
      from: pdu.source_addr,
      text: pdu.short_message.message,
      coding: pdu.data_coding,
      part: udh ? [udh[3], udh[4]] : [1, 1],
      registered: pdu.registered_delivery,
    });
    session.send(pdu.response({ message_id: id }));
    session.deliver_sm({
      esm_class: 4,
      source_addr: pdu.destination_addr,
      destination_addr: pdu.source_addr,
      receipted_message_id: id,
      message_state: 2,
      short_message: `id:${id} sub:001 dlvrd:001 submit date:2611240000 done date:2611240000 stat:DELIVRD err:000 text:`,
    }, (answer) => tell({ receipt: id, status: answer.command_status }));
  });
});

server.listen(0, '127.0.0.1', () => tell({ port: server.address().port }));
process.stdin.on('end', () => process.exit(0)).resume();
