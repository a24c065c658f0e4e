// A runtime in another language that writes to the ledger through a pipe: `node examples/node/runtime.mjs [SESSION]`.
//
// It starts `runledger ingest --format runtime --ack`, writes a RuntimeEvent a line, and knows from each acknowledgement
// {"line", "position"} that the event is on disk. Each event has an id of its own, so one that was not acknowledged when a
// pipe broke can be given again, with `id` in `more`: the ledger takes it once.
import {spawn} from 'node:child_process';
import {randomUUID} from 'node:crypto';
import {createInterface} from 'node:readline';

/** Writes RuntimeEvents to the ledger; `append` resolves with the event's position once it is durable. */
export class Ledger {
	#ingest;
	#lines = 0;
	#waiting = new Map();

	constructor(session, program = 'runledger') {
		const args = ['ingest', '--format', 'runtime', '--session', session, '--ack', '--json'];
		this.#ingest = spawn(program, args, {stdio: ['pipe', 'pipe', 'inherit']});
		this.closed = new Promise((resolve, reject) => {
			const explain = error => new Error(`${program} does not start (${error.code}): put it into PATH, or name it in RUNLEDGER`);
			this.#ingest.once('error', error => reject(explain(error)));
			// A pipe that breaks is told by the end of the program behind it.
			this.#ingest.stdin.on('error', () => {});
			this.#ingest.once('close', status => {
				for (const {reject} of this.#waiting.values()) reject(new Error(`ingest ended with status ${status}`));
				this.#waiting.clear();
				resolve(status);
			});
		});
		createInterface({input: this.#ingest.stdout}).on('line', line => this.#take(JSON.parse(line)));
	}

	append(kind, data, more = {}) {
		const event = {id: randomUUID(), timestamp: Date.now(), kind, data, ...more};
		const line = ++this.#lines;
		return new Promise((resolve, reject) => {
			this.#waiting.set(line, {resolve, reject});
			this.#ingest.stdin.write(`${JSON.stringify(event)}\n`);
		});
	}

	close() {
		this.#ingest.stdin.end();
		return this.closed;
	}

	#take(answer) {
		// The last line is the report; it names the lines that were not taken.
		for (const {line, reason} of answer.rejected ?? []) this.#settle(line, ({reject}) => reject(new Error(reason)));
		if (answer.position !== undefined) this.#settle(answer.line, ({resolve}) => resolve(answer.position));
	}

	#settle(line, settle) {
		const waiting = this.#waiting.get(line);
		this.#waiting.delete(line);
		if (waiting) settle(waiting);
	}
}

process.on('unhandledRejection', error => {
	console.error(error.message);
	process.exit(3);
});

const session = process.argv[2] ?? 'node-example';
const ledger = new Ledger(session, process.env.RUNLEDGER ?? 'runledger');
const of = {sessionId: session};
await ledger.append('session.start', {source: 'startup', model: 'example'}, of);
await ledger.append('user.prompt', {prompt: 'Say which day it is'}, of);
const tool = {tool_name: 'Clock', tool_use_id: randomUUID()};
await ledger.append('tool.pre', {...tool, tool_input: {format: 'date'}}, of);
await ledger.append('tool.post', {...tool, tool_response: new Date().toDateString()}, of);
const position = await ledger.append('message.complete', {message: `It is ${new Date().toDateString()}.`}, of);
await ledger.append('turn.complete', {status: 'completed'}, of);
process.exitCode = await ledger.close();
console.log(`the answer is event ${position} of the ledger; see it with: runledger feed --session ${session}`);
