// A steady rate of requests, whose answers are counted by version. Run by k6.rs, which reads the samples.
import http from 'k6/http';
import { Counter } from 'k6/metrics';

const counters = { v1: new Counter('v1'), v2: new Counter('v2'), failed: new Counter('failed') };

export const options = {
  noConnectionReuse: __ENV.NEW_CONNECTIONS === 'true',
  scenarios: {
    steady: {
      executor: 'constant-arrival-rate',
      rate: Number(__ENV.RATE),
      timeUnit: '1s',
      duration: '1h',
      preAllocatedVUs: 40,
      maxVUs: 400,
    },
  },
};

export default function () {
  const answer = http.get(__ENV.URL, { headers: { Host: __ENV.NAME }, timeout: '5s' });
  let version;
  if (answer.status === 200) {
    version = answer.json('version');
  }
  (counters[version] || counters.failed).add(1);
}
