import io.github.centrifugal.centrifuge.ClientInfo;
import io.github.centrifugal.centrifuge.JoinEvent;
import io.github.centrifugal.centrifuge.LeaveEvent;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.StreamPosition;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.SubscribingEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionErrorEvent;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import io.github.centrifugal.centrifuge.UnsubscribedEvent;
import java.lang.reflect.Method;
import java.util.LinkedHashMap;
import java.util.Map;

/** Reports what happens to a subscription. */
final class SubscriptionEvents extends SubscriptionEventListener {
    private final Output.Teller teller;

    SubscriptionEvents(Output.Teller teller) {
        this.teller = teller;
    }

    @Override
    public void onSubscribed(Subscription sub, SubscribedEvent e) {
        StreamPosition position = e.getStreamPosition();
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("recoverable", e.getRecoverable());
        facts.put("positioned", e.getPositioned());
        facts.put("offset", position == null ? 0 : read(position, "getOffset"));
        facts.put("epoch", position == null ? "" : read(position, "getEpoch"));
        facts.put("wasRecovering", e.wasRecovering());
        facts.put("recovered", e.getRecovered());
        teller.tell("subscribed", facts);
    }

    /** The SDK gives the position to applications, but its getters are not public. */
    private static Object read(StreamPosition position, String getter) {
        try {
            Method method = StreamPosition.class.getDeclaredMethod(getter);
            method.setAccessible(true);
            return method.invoke(position);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    @Override
    public void onSubscribing(Subscription sub, SubscribingEvent e) {
        teller.tell("subscribing", Map.of("code", e.getCode(), "reason", e.getReason()));
    }

    @Override
    public void onUnsubscribed(Subscription sub, UnsubscribedEvent e) {
        teller.tell("unsubscribed", Map.of("code", e.getCode(), "reason", e.getReason()));
    }

    @Override
    public void onError(Subscription sub, SubscriptionErrorEvent e) {
        teller.tell("error", Output.failure(e.getError()));
    }

    @Override
    public void onPublication(Subscription sub, PublicationEvent e) {
        String from = e.getInfo() == null ? "" : e.getInfo().getClient();
        teller.tell(
                "publication",
                Map.of("data", Output.got(e.getData()), "offset", e.getOffset(), "from", from));
    }

    @Override
    public void onJoin(Subscription sub, JoinEvent e) {
        tellOf("join", e.getInfo());
    }

    @Override
    public void onLeave(Subscription sub, LeaveEvent e) {
        tellOf("leave", e.getInfo());
    }

    private void tellOf(String event, ClientInfo info) {
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("who", info.getClient());
        facts.put("user", info.getUser());
        facts.put("info", Output.got(info.getConnInfo()));
        teller.tell(event, facts);
    }
}
