import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/**
 * The Java SDK under remote control: one JSON command per line in, answers and events out.
 *
 * <pre>
 * In:  {"id": 1, "do": "publish", "client": "ann", "channel": "news", "data": 5}
 * Out: {"id": 1, "ok": {...}}, {"id": 1, "error": {"code": 108, "message": "..."}} or
 *      {"id": 1, "unsupported": "what this SDK does not have"}
 *      {"event": "publication", "client": "ann", "channel": "news", ...} whenever the SDK says so
 * </pre>
 *
 * Ends with its standard input. The SDK speaks Protobuf only; data is JSON all the same. The commands and
 * events are those of ../sdk_client.mjs.
 */
final class SdkClient {
    private SdkClient() {}

    public static void main(String[] arguments) throws IOException {
        Output output = new Output(new PrintStream(System.out, false, StandardCharsets.UTF_8));
        Verbs verbs = new Verbs(output);
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonObject command = JsonParser.parseString(line).getAsJsonObject();
            JsonElement id = command.get("id");
            try {
                verbs.obey(command, (error, result) -> output.answer(id, error, result));
            } catch (Exception error) {
                output.answer(id, error, null);
            }
        }
        // The threads of the SDK would keep the process.
        System.exit(0);
    }
}
