// Sends one message with nodemailer, as its one argument says in JSON: {transport, from, to}. Prints the server's
// reply; a failure's words and code otherwise, with status 1.
"use strict";

const { readFileSync } = require("node:fs");
const { createTransport } = require("nodemailer");

const { transport, from, to } = JSON.parse(process.argv[2]);
transport.tls.ca = readFileSync(transport.tls.ca);
createTransport(transport).sendMail({ from, to, subject: "x", text: "text" }).then(
  (info) => console.log(info.response),
  (error) => {
    console.error(error.code, error.message);
    process.exitCode = 1;
  },
);
