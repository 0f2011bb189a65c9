"""Alerts to people, through Apprise.

What is promised on double notifications
----------------------------------------
Every alert is sent to every channel of its watch's owner at least once. A send counts as delivered on the far side's own
acknowledgement, and that acknowledgement is stored right after it came. A message is sent again only where Keeper does not
have the acknowledgement:

- the process died, or lost the lock on its outbox shard, between the far side's acknowledgement and its storing;
- the acknowledgement was lost on its way: the connection broke or timed out after the message had gone out. Keeper cannot
  tell this from a message that never arrived, and prefers a second notification to none.

Nothing else sends twice: Apprise's own retries are off, one channel is one recipient (so a repeat for one recipient reaches
no other), and a message a server has acknowledged stays delivered when the goodbye after it fails.

What a repeat looks like:

- Mail: the same Message-ID (`<id of the delivery@domain of the sender>`), the same subject and body. RFC 5322 makes this the
  mark of the same message; many mailboxes and servers drop the second copy, none has to.
- ntfy 2.16 and newer: the same sequence id, so the repeat replaces the first notification; the device may sound again.
  An older server shows two.
- Discord: webhooks have no de-duplication (`nonce` belongs to bots only), so a repeat is a second message. Keeper asks for
  `wait=true`, so the acknowledgement says that the message is stored, not only that it was received.
- Telegram: the Bot API has no de-duplication; a repeat is a second message.
- Slack: incoming webhooks and `chat.postMessage` document no de-duplication; a repeat is a second message.
- Other schemes, switched on by an administrator: no more than Apprise's yes or no is known of them; one URL is one send.
"""
