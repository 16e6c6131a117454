import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonParser;
import io.github.centrifugal.centrifuge.ReplyError;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** Writes answers and events, one JSON document per line; all threads of the SDK share it. */
final class Output {
    private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
    private final PrintStream stream;

    Output(PrintStream stream) {
        this.stream = stream;
    }

    /** The data of an SDK's event: bytes that are JSON in these tests. */
    static JsonElement got(byte[] data) {
        if (data == null || data.length == 0) {
            return JsonNull.INSTANCE;
        }
        return JsonParser.parseString(new String(data, StandardCharsets.UTF_8));
    }

    /** The data that the SDK is to send. */
    static byte[] sent(JsonElement data) {
        return GSON.toJson(data).getBytes(StandardCharsets.UTF_8);
    }

    void answer(JsonElement id, Throwable error, Map<String, Object> result) {
        Map<String, Object> message = new LinkedHashMap<>();
        message.put("id", id);
        if (error instanceof Unsupported) {
            message.put("unsupported", error.getMessage());
        } else if (error != null) {
            message.put("error", failure(error));
        } else {
            message.put("ok", result);
        }
        say(message);
    }

    static Map<String, Object> failure(Throwable error) {
        int code = error instanceof ReplyError refused ? refused.getCode() : 0;
        return Map.of("code", code, "message", String.valueOf(error.getMessage()));
    }

    synchronized void say(Map<String, Object> message) {
        stream.println(GSON.toJson(message));
        stream.flush();
    }

    /** Reports events of one client, and with a channel of one subscription. */
    Teller teller(String client, String channel) {
        return (event, facts) -> {
            Map<String, Object> message = new LinkedHashMap<>();
            message.put("event", event);
            message.put("client", client);
            if (channel != null) {
                message.put("channel", channel);
            }
            message.putAll(facts);
            say(message);
        };
    }

    /** Reports one event. */
    interface Teller {
        void tell(String event, Map<String, Object> facts);
    }

    /** Says what this SDK does not have. */
    static final class Unsupported extends Exception {
        private static final long serialVersionUID = 1;

        Unsupported(String what) {
            super(what);
        }
    }
}
