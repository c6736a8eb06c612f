"""Evidence about a sender: SPF, DKIM, DMARC and DNS.

Nothing here decides. drainer.policy.bounce decides with the facts that are found here.
A check of a hostile message or a slow domain may take long. So a drain asks through
``client``: each message has a process that can be killed, and DNS has a budget.
"""
