// Traces a small agent with the JavaScript SDK, sends OTLP/JSON to the URL given, and prints what was sent.
import { context, trace, SpanStatusCode } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";

const exporter = new OTLPTraceExporter({ url: process.argv[2] });
const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ "service.name": "js-agent" }),
  spanProcessors: [new BatchSpanProcessor(exporter)],
});
const tracer = provider.getTracer("js-agent", "1.0");
const sent = [];

function note(span, name, failed) {
  const { traceId, spanId } = span.spanContext();
  sent.push({ traceId, spanId, name, failed });
}

for (let run = 0; run < 5; run++) {
  const root = tracer.startSpan("agent", { attributes: { "gen_ai.operation.name": "invoke_agent" } });
  const inside = trace.setSpan(context.active(), root);
  const attributes = {
    "gen_ai.operation.name": "execute_tool",
    text: "naïve ☃ 🙂",
    big: Number.MAX_SAFE_INTEGER,
    share: 0.5,
    list: ["a", "b"],
  };
  const tool = tracer.startSpan("search", { attributes }, inside);
  const failed = run % 2 === 1;
  if (failed) tool.setStatus({ code: SpanStatusCode.ERROR, message: "no such place" });
  tool.addEvent("asked", { attempt: 1 });
  tool.end();
  root.end();
  note(tool, "search", failed);
  note(root, "agent", false);
}
await provider.forceFlush();
await provider.shutdown();
console.log(JSON.stringify(sent));
